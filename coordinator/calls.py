"""Remote calls whose every failure is one sentence that names who was asked, and for how long."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar, cast

import grpc
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from mpcnode.errors import MpcError

Request = TypeVar("Request", contravariant=True)  # noqa: PLC0105
Reply = TypeVar("Reply", covariant=True)  # noqa: PLC0105
Message = TypeVar("Message")

RETRY_S = 0.2


class Asks(Protocol[Request, Reply]):
    """A unary call of a stub."""

    def __call__(self, request: Request, timeout: float | None = None, *, wait_for_ready: bool | None = None) -> Reply:
        """Send the request and wait for the reply."""


class Stream(Protocol[Reply]):
    """The answer of a streaming call."""

    def __iter__(self) -> Iterator[Reply]:
        """Its messages."""

    def cancel(self) -> object:
        """End it; no error if it has ended."""


class CallFailed(MpcError):
    """A call to `who` had no good answer; `code` says how it went wrong."""

    def __init__(self, code: grpc.StatusCode, who: str, sentence: str) -> None:
        self.code, self.who = code, who
        super().__init__(sentence)

    @property
    def answered(self) -> bool:
        """True if the other side was there and said no, rather than being out of reach or broken."""
        return self.code in _SAID_NO


_SAID_NO = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.OUT_OF_RANGE,
}


def ask(
    method: Asks[Request, Reply], request: Request, who: str, timeout_s: float, *, wait_for_ready: bool = False
) -> Reply:
    """Call `method` and wait at most `timeout_s` seconds; CallFailed otherwise.

    `wait_for_ready` keeps trying to connect until then, so the call may be made more than once; without it, nobody
    listening is an error at once.
    """
    until = time.monotonic() + timeout_s

    def once() -> Reply:
        try:
            left_s = max(0.1, until - time.monotonic())
            return method(request, timeout=left_s, wait_for_ready=wait_for_ready)
        except grpc.RpcError as error:
            raise explain(error, who, timeout_s) from None

    if not wait_for_ready:
        return once()
    # gRPC itself waits for a connection, but a call that has left on one that breaks fails at once.
    again = Retrying(
        stop=stop_after_delay(timeout_s),
        wait=wait_fixed(RETRY_S),
        retry=retry_if_exception(_out_of_reach),
        reraise=True,
    )
    return again(once)


def _out_of_reach(error: BaseException) -> bool:
    return isinstance(error, CallFailed) and error.code is grpc.StatusCode.UNAVAILABLE


def follow(start: Callable[[], Stream[Message]], who: str) -> Iterator[Message]:
    """The messages of a stream, until its end; CallFailed if it breaks.  Closing the iterator ends the stream."""
    call = start()
    try:
        yield from call
    except grpc.RpcError as error:
        raise explain(error, who, 0.0) from None
    finally:
        call.cancel()


def explain(error: grpc.RpcError, who: str, timeout_s: float) -> CallFailed:
    """The failure as a sentence about `who`."""
    call = cast(grpc.Call, error)  # what a stub raises is both, but the stubs' types have no word for that
    code, details = call.code(), call.details() or ""
    match code:
        case grpc.StatusCode.UNAVAILABLE if "handshake" in details.lower():
            sentence = (
                f"{who} does not accept this connection, or has another certificate than its card in cluster.toml: "
                "give everybody the same cluster.toml"
            )
        case grpc.StatusCode.UNAVAILABLE:
            sentence = f"{who} cannot be reached: see that it runs and that its address in cluster.toml is right"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            sentence = f"{who} has not answered for {timeout_s:.0f} s"
        case grpc.StatusCode.UNIMPLEMENTED:
            sentence = f"{who} does not know this call: it runs another version"
        case _ if code in _SAID_NO and details:
            sentence = details
        case _:
            sentence = f"{who} failed: {details or code.name}"
    return CallFailed(code, who, sentence)
