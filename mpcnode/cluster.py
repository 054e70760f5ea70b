"""Who takes part: cluster.toml, the collected cards and the roles that they play.

Exactly the certificates in it are trusted, by everyone, for everything; there is no other list of users.  All
members hold the same file, and `digest` says whether they do.
"""

import hashlib
import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mpcnode import tomlfile
from mpcnode.errors import ConfigError
from mpcnode.identity import Card, Identity, Name, fingerprint

Protocol = Literal["masked", "cleartext"]


class Cluster(BaseModel):
    """The cards of all members, and which of them evaluates, helps and coordinates."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)

    name: Name
    protocol: Protocol = "masked"
    helper: Name | None = None
    evaluators: tuple[Name, ...] = Field(min_length=2)
    coordinator: Name
    cards: tuple[Card, ...] = Field(alias="party")

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [card.name for card in self.cards]
        for name in names:
            if names.count(name) > 1:
                # Certificates then differ as well: each is made out to exactly one name.
                raise ValueError(f"two cards have the name {name}: every member needs its own")
        self._check_roles(names)
        return self

    def _check_roles(self, names: list[str]) -> None:
        if self.protocol == "masked" and self.helper is None:
            raise ValueError('the "masked" protocol needs a helper: name a member that evaluates nothing as helper')
        if len(set(self.evaluators)) < len(self.evaluators):
            raise ValueError("a member stands twice among the evaluators")
        if self.helper in self.evaluators:
            raise ValueError(f"{self.helper} is helper and evaluator: with both views it could read every secret")
        if self.coordinator in (self.helper, *self.evaluators):
            raise ValueError(f"{self.coordinator} coordinates and computes: the coordinator needs a card of its own")
        for name in (*self.parties, self.coordinator):
            if name not in names:
                raise ValueError(f"{name} has a role but no [[party]]: add its card")
            if self.card(name).address is None:
                raise ValueError(f"{name} has a role but its card has no address: ask it for a card with one")

    @classmethod
    def of(
        cls,
        name: str,
        cards: list[Card],
        *,
        evaluators: list[str],
        coordinator: str,
        helper: str | None = None,
        protocol: str = "masked",
    ) -> "Cluster":
        """Build a cluster; ConfigError says what does not fit."""
        roles = {"name": name, "protocol": protocol, "helper": helper, "coordinator": coordinator}
        try:
            return cls.model_validate({**roles, "evaluators": tuple(evaluators), "party": tuple(cards)})
        except ValidationError as error:
            raise ConfigError(f"the cluster cannot be made: {tomlfile.sentence(error)}") from error

    @classmethod
    def load(cls, path: Path | str) -> "Cluster":
        """Read cluster.toml; ConfigError names the field that is wrong."""
        path = Path(path)
        document = tomlfile.read_document(path)
        header = document.pop("cluster", None)
        if not isinstance(header, dict) or document.keys() - {"party"}:
            raise ConfigError(
                f"{path}: wants one [cluster] with name and roles, a [[party]] for each card, and no more"
            )
        return tomlfile.validate(path, {**header, **document}, cls)

    def save(self, path: Path | str) -> None:
        """Write cluster.toml in one step."""
        tomlfile.write(Path(path), self.document())

    def document(self) -> dict[str, Any]:
        """The contents of cluster.toml."""
        header = self.model_dump(exclude_none=True, exclude={"cards"})
        return {"cluster": header, "party": [card.document() for card in self.cards]}

    @property
    def parties(self) -> tuple[str, ...]:
        """Who computes, by rank: the helper, where there is one, then the evaluators."""
        return self.evaluators if self.helper is None else (self.helper, *self.evaluators)

    @property
    def servers(self) -> tuple[Card, ...]:
        """The members that can be reached, computing parties, coordinator and further owners alike."""
        return tuple(card for card in self.cards if card.address is not None)

    @property
    def owners(self) -> tuple[str, ...]:
        """Who can bring data to a job, computing or not: everybody who serves but the helper, who knows all masks, and
        the coordinator.
        """
        evaluators = self.evaluators
        served = (card.name for card in self.servers)
        return (*evaluators, *(n for n in served if n not in (*evaluators, self.helper, self.coordinator)))

    @property
    def nodes(self) -> tuple[str, ...]:
        """Who can have a part in a job: those who compute, and the other owners."""
        return (*self.parties, *(name for name in self.owners if name not in self.parties))

    def card(self, name: str) -> Card:
        """The card of the member `name`; ConfigError if there is none."""
        for card in self.cards:
            if card.name == name:
                return card
        raise ConfigError(f"{name} is not in the cluster {self.name}: add its card to cluster.toml as a [[party]]")

    def by_certificate(self, pem: bytes) -> Card | None:
        """The member with exactly this certificate, compared by its DER bytes; None if it is nobody's."""
        try:
            der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
        except ValueError:
            return None
        return next((card for card in self.cards if card.der == der), None)

    def digest(self) -> bytes:
        """SHA-256 over roles, certificates and seal keys.

        Addresses are left out, as are the order of the cards and their layout: a member may be reached by another
        address from behind another firewall, and its certificate says whether it is the one.
        """
        roles = self.model_dump(exclude={"cards"})
        keys = sorted((card.name, fingerprint(card.x509), card.seal_public.hex()) for card in self.cards)
        return hashlib.sha256(json.dumps([roles, keys], sort_keys=True).encode()).digest()

    def check_member(self, identity: Identity) -> Card:
        """The cluster's card of `identity`; ConfigError if it is missing or is another than the identity's own."""
        card = self.card(identity.name)
        if (card.der, card.seal_key) != (identity.card.der, identity.card.seal_key):
            raise ConfigError(
                f"the cluster {self.name} has another card for {card.name} than {identity.folder / 'card.toml'}: "
                "give everybody the new card, or use the identity that they know"
            )
        return card

    def validity(self, now: datetime | None = None, notice: timedelta = timedelta(days=30)) -> list[str]:
        """A sentence for every certificate that is not valid at `now` or ends within `notice`."""
        now = now or datetime.now(UTC)
        found = []
        for card in self.cards:
            start, end = card.x509.not_valid_before_utc, card.x509.not_valid_after_utc
            renew = f"{card.name} makes a new identity with `mpcnode init`, and everybody replaces its card"
            if now > end:
                found.append(f"the certificate of {card.name} expired on {end:%Y-%m-%d}: {renew}")
            elif now < start:
                found.append(f"the certificate of {card.name} is valid from {start:%Y-%m-%d} on: check this clock")
            elif now + notice > end:
                found.append(f"the certificate of {card.name} expires on {end:%Y-%m-%d}: before that, {renew}")
        return found

    def check_validity(self, now: datetime | None = None, names: Collection[str] = ()) -> None:
        """ConfigError if a certificate that the computation needs, a party's, the coordinator's or one of `names`, is
        not valid.
        """
        self._check_validity({*self.parties, self.coordinator, *names}, now)

    def check_dialogue(self, name: str, now: datetime | None = None) -> None:
        """ConfigError if `name` and the coordinator cannot talk, as the certificate of one of them is not valid."""
        self._check_validity({name, self.coordinator}, now)

    def _check_validity(self, needed: Collection[str], now: datetime | None) -> None:
        now = now or datetime.now(UTC)
        lapsed = [card for card in self.cards if card.name in needed and card.expired(now)]
        if lapsed:
            only = self.model_copy(update={"cards": tuple(lapsed)})
            raise ConfigError(only.validity(now, timedelta(0))[0])
