"""Every failure that a user can meet, as one tree.

    MpcError                   message: one sentence, what is wrong and what to do
    ├── ConfigError            an identity, a card, cluster.toml or an option is wrong
    ├── DataError              a dataset is missing, has changed, or holds what cannot be computed on
    ├── PolicyError            an owner does not allow what a job asks for
    ├── SealError              a sealed result was altered, or was made for somebody or something else
    ├── LinkError              a peer cannot be reached, was late, or broke the protocol
    └── Aborted                a job ended on this node before its result was there

The command line prints the message on one line and exits with 1.  A message names parties, files, columns and
rows, and never holds a data value, a share or a key: it may end in a log that others read.
"""


class MpcError(Exception):
    """Base of every failure that is meant for a user's eyes."""


class ConfigError(MpcError):
    """An identity, a card, cluster.toml or an option is wrong."""


class DataError(MpcError):
    """A dataset is missing, has changed, or holds what cannot be computed on."""


class PolicyError(MpcError):
    """An owner does not allow what a job asks for."""


class SealError(MpcError):
    """A sealed result was altered on its way, or was made for another recipient, job or output."""


class LinkError(MpcError):
    """The link to `peer` failed while this node was busy with `op`; `why` completes the sentence."""

    def __init__(self, peer: str, op: str, why: str = "") -> None:
        self.peer, self.op, self.why = peer, op, why
        super().__init__(f"the link to {peer} failed at {op}{': ' + why if why else ''}")


class Aborted(MpcError):
    """The job ended early; `cause` is the sentence that every party of the job reports."""

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(f"the job was aborted: {cause}")
