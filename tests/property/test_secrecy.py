"""What parties see under masked evaluation is uniform and says nothing of the secrets; and these tests can fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from views import (
    ALARM,
    SECRETS,
    Transcript,
    View,
    alike,
    coalition,
    differences,
    every_op,
    proper_parts,
    received,
    several,
    transcript,
    uniform,
)

from mpcnode.engine import Plan
from mpcnode.party import Place
from mpcnode.protocols.dealing import DEALT, HELPER, LEVEL, MASK, REVEAL

ELEMENTS, RUNS = 4096, 4
# Evaluators, the rank of the honest one, whose data it is, and whether comparisons are by keys.
CUTS = [(2, 1, False), (2, 2, False), (3, 1, False), (3, 3, False), (2, 1, True), (2, 2, True)]


def runs(evaluators: int, honest: int, secret: str, seed: int = 0, by_key: bool = False) -> list[Transcript]:
    return [transcript(evaluators, honest, SECRETS[secret](ELEMENTS), 1000 * seed + i, by_key) for i in range(RUNS)]


def together(found: list[Transcript], honest: int) -> View:
    return several([coalition(t, honest) for t in found])


# ---- nothing shows ---------------------------------------------------------------------------------------------------
class Cut:
    """Runs on one secret, and who is honest."""

    def __init__(self, evaluators: int, honest: int, by_key: bool, secret: str) -> None:
        self.evaluators, self.honest = evaluators, honest
        self.runs = runs(evaluators, honest, secret, by_key=by_key)


@pytest.fixture(scope="module", params=[(*cut, secret) for cut in CUTS for secret in SECRETS], ids=str)
def cut(request: pytest.FixtureRequest) -> Cut:
    return Cut(*request.param)


def test_what_a_party_receives_is_uniform(cut: Cut) -> None:
    for rank in range(1, 1 + cut.evaluators):
        assert uniform(several([received(t, rank) for t in cut.runs])) > ALARM


def test_what_all_evaluators_but_one_know_together_is_uniform(cut: Cut) -> None:
    view = together(cut.runs, cut.honest)
    assert uniform(view) > ALARM
    assert uniform(differences(view)) > ALARM


def test_a_recipient_learns_the_outputs_and_no_more(cut: Cut) -> None:
    view = several([proper_parts(t) for t in cut.runs])
    assert uniform(view) > ALARM
    assert uniform(differences(view)) > ALARM


def test_the_helper_receives_nothing(cut: Cut) -> None:
    assert all(m.target != HELPER for t in cut.runs for m in t.messages)


@pytest.mark.parametrize(("evaluators", "honest", "by_key"), CUTS)
def test_views_of_different_secrets_are_alike(evaluators: int, honest: int, by_key: bool) -> None:
    one, other = (
        together(runs(evaluators, honest, secret, seed, by_key), honest)
        for seed, secret in enumerate(("zeros", "structured"))
    )
    assert alike(one, other) > ALARM


# ---- the tests above can fail ----------------------------------------------------------------------------------------
Draw = Callable[[Place, int, int, Any], Any]
COMMON = Place.common


def none(weak: Callable[[int, set[int]], bool]) -> Draw:
    """Common randomness that is missing, at both ends, for some (purpose, pair of parties)."""

    def common(p: Place, peer: int, purpose: int, out: Any) -> Any:
        COMMON(p, peer, purpose, out)
        if weak(purpose, {p.rank, peer}):
            out[...] = 0
        return out

    return common


def same_for_every_op(p: Place, peer: int, purpose: int, out: Any) -> Any:
    return COMMON(Place(p.party, 0, p.step, 0), peer, purpose, out)


def same_for_every_step(p: Place, peer: int, purpose: int, out: Any) -> Any:
    return COMMON(Place(p.party, p.op, 0, 0), peer, purpose, out)


PLANTS: dict[str, tuple[int, int, Draw]] = {
    "no masks of results": (2, 1, none(lambda purpose, pair: purpose == MASK)),
    "no masks in comparisons": (2, 1, none(lambda purpose, pair: LEVEL <= purpose < DEALT)),
    "no masks of the honest evaluator": (3, 3, none(lambda purpose, pair: purpose < DEALT and 3 in pair)),
    "dealt in clear": (2, 1, none(lambda purpose, pair: purpose >= DEALT)),
    "dealt in clear to all but one": (3, 3, none(lambda purpose, pair: purpose >= DEALT and 3 in pair)),
    "one mask for every op": (2, 1, same_for_every_op),
    "one mask for every step": (2, 1, same_for_every_step),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_leak_is_caught(plant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluators, honest, common = PLANTS[plant]
    monkeypatch.setattr(Place, "common", common)
    view = together(runs(evaluators, honest, "largest"), honest)
    assert min(uniform(view), uniform(differences(view))) < ALARM


KEY_PLANTS: dict[str, Callable[[int, set[int]], bool]] = {
    "no mask of the sign": lambda purpose, pair: LEVEL <= purpose < DEALT,
    "no mask of the honest evaluator's share": lambda purpose, pair: LEVEL <= purpose < DEALT and 1 in pair,
    "roots that all know": lambda purpose, pair: purpose >= DEALT,
}


@pytest.mark.parametrize("plant", KEY_PLANTS)
def test_a_leak_in_comparisons_by_key_is_caught(plant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    signs = {number for number, op in Plan(every_op(ELEMENTS, "owner")).ops().items() if op.name == "sign"}
    weak = none(KEY_PLANTS[plant])

    def common(p: Place, peer: int, purpose: int, out: Any) -> Any:
        return (weak if p.op in signs else COMMON)(p, peer, purpose, out)

    monkeypatch.setattr(Place, "common", common)
    view = together(runs(2, 1, "largest", by_key=True), 1)
    assert min(uniform(view), uniform(differences(view))) < ALARM


def test_parts_that_are_not_masked_again_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "common", none(lambda purpose, pair: purpose == REVEAL))
    assert uniform(several([proper_parts(t) for t in runs(2, 1, "zeros")])) < ALARM


def test_views_of_different_secrets_are_told_apart_without_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Place, "common", none(lambda purpose, pair: purpose == MASK))
    one, other = (together(runs(2, 1, secret), 1) for secret in ("zeros", "structured"))
    assert alike(one, other) < ALARM
