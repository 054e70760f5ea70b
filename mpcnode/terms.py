"""Terms as they stand in datasets.toml and kept.toml: who may learn what any program computes, and which programs, by
their digest, may do what they say, and for whom.

    for = ["analyst"]                                           # whatever any program computes from it
    programs = [
        "5b1c...",                                              # what this program tells whomever it names
        { program = "90aa...", for = ["clinic_b"] },            # what this one tells clinic_b
    ]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mpcnode.errors import ConfigError
from mpcnode.identity import ANYONE, check_name
from mpcnode.policy import Terms

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, populate_by_name=True)


def check_recipient(name: str) -> str:
    """Return `name` if a policy can allow it; ValueError otherwise."""
    return name if name == ANYONE else check_name(name)


def check_program(text: str) -> str:
    """Return `text` if it is a program's digest; ValueError otherwise."""
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise ValueError("a program is named by the 64 hexadecimal digits of its digest: `coordinator show --digest`")
    return text


Recipient = Annotated[str, AfterValidator(check_recipient)]
Program = Annotated[str, AfterValidator(check_program)]


class Approval(BaseModel):
    """A program that may tell these recipients what it says."""

    model_config = STRICT

    program: Program
    recipients: tuple[Recipient, ...] = Field(validation_alias="for", serialization_alias="for")


class Allowed(BaseModel):
    """What an owner, or an operator, allows; for others to inherit."""

    model_config = STRICT

    recipients: tuple[Recipient, ...] = Field(default=(), validation_alias="for", serialization_alias="for")
    programs: tuple[Approval | Program, ...] = ()  # a digest alone: for whomever the program names

    def approvals(self) -> dict[str, tuple[str, ...]]:
        """By digest, for whom; ANYONE: whomever the program names."""
        found = (p if isinstance(p, Approval) else Approval(program=p, recipients=(ANYONE,)) for p in self.programs)
        return {approval.program: approval.recipients for approval in found}

    def terms(self, *, keep: bool = False) -> Terms:
        """As policy.py takes them."""
        programs = {program: frozenset(whom) for program, whom in self.approvals().items()}
        return Terms(frozenset(self.recipients), keep, programs)

    def allowing(self, recipients: Sequence[str], programs: Sequence[str]) -> Self:
        """With what is allowed besides: these programs for the recipients (or whomever they name), or, without any
        program, whatever is for the recipients.  ConfigError for what names no recipient or program.
        """
        found = self.approvals()
        try:
            whom = tuple(dict.fromkeys(map(check_recipient, recipients)))
            for program in map(check_program, programs):
                found[program] = tuple(dict.fromkeys((*found.get(program, ()), *(whom or (ANYONE,)))))
        except ValueError as error:
            raise ConfigError(f"{error}") from error
        wider = self.recipients if programs else tuple(dict.fromkeys((*self.recipients, *whom)))
        listed = (p if ANYONE in to else Approval(program=p, recipients=to) for p, to in found.items())
        return self.model_copy(update={"recipients": wider, "programs": tuple(listed)})

    def forbidding(self) -> Self:
        """Without anything that is allowed."""
        return self.model_copy(update={"recipients": (), "programs": ()})
