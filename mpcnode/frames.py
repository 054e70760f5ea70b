"""Pieces of arrays as frames of peer.proto, and back.

protobuf copies the bytes of an array four times on their way, so the frame of a large piece is written and read here,
with one copy in all; its bytes are the same.  Everything small goes through protobuf, which is faster there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from google.protobuf.message import DecodeError

from mpcnode.wire import peer_pb2

MAX_DATA = 1 << 20  # bytes of array data in a frame
MAX_FRAME = MAX_DATA + (1 << 16)  # with the headers of all its parts
LARGE = 1 << 18  # bytes of a piece from which on copying costs more than protobuf saves

Data: TypeAlias = bytes | memoryview


class FrameError(ValueError):
    """Bytes that are no frame of this protocol; the message completes "it sent ..."."""


class Piece(NamedTuple):
    """A run of bytes of one array: `sequence` counts the arrays of a channel, `nbytes` is the length of the whole."""

    channel: int
    op: int
    sequence: int
    nbytes: int
    data: Data


def cut(channel: int, op: int, sequence: int, data: Data) -> Iterator[Piece]:
    """The pieces of an array, of at most MAX_DATA bytes; one, without data, for an empty array."""
    nbytes = len(data)
    for start in range(0, max(nbytes, 1), MAX_DATA):
        yield Piece(channel, op, sequence, nbytes, data[start : start + MAX_DATA])


# ---- writing ---------------------------------------------------------------------------------------------------------
def write(pieces: Sequence[Piece]) -> bytes:
    """The frame of pieces, in order; their data is at most MAX_DATA bytes in all."""
    if len(pieces) == 1 and len(pieces[0].data) >= LARGE:
        return _write_large(pieces[0])
    parts = [
        peer_pb2.Part(channel=p.channel, op=p.op, sequence=p.sequence, nbytes=p.nbytes, data=bytes(p.data))  # type: ignore[arg-type]
        for p in pieces
    ]
    return peer_pb2.Frame(parts=peer_pb2.Parts(parts=parts)).SerializeToString()


def _write_large(piece: Piece) -> bytes:
    head = peer_pb2.Part(channel=piece.channel, op=piece.op, sequence=piece.sequence, nbytes=piece.nbytes)  # type: ignore[arg-type]
    part = head.SerializeToString() + b"\x2a" + _varint(len(piece.data))  # Part.data
    parts = b"\x0a" + _varint(len(part) + len(piece.data))  # Parts.parts
    frame = b"\x12" + _varint(len(parts) + len(part) + len(piece.data))  # Frame.parts
    return b"".join((frame, parts, part, piece.data))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# ---- reading ---------------------------------------------------------------------------------------------------------
def read(frame: bytes) -> list[Piece] | peer_pb2.Frame:
    """The pieces of a frame, or the whole frame if it carries none.  Raises FrameError for what is no frame."""
    if len(frame) > MAX_FRAME:
        raise FrameError(f"a frame of {len(frame)} bytes, {MAX_FRAME} are the most")
    large = _read_large(frame) if len(frame) >= LARGE else None
    if large is not None:
        return [large]
    try:
        message = peer_pb2.Frame.FromString(frame)
    except DecodeError:
        raise FrameError(f"{len(frame)} bytes that are no frame") from None
    body = message.WhichOneof("body")
    if body is None:
        raise FrameError("a frame of a kind that this version does not know")
    if body != "parts":
        return message
    return [Piece(p.channel, p.op, p.sequence, p.nbytes, p.data) for p in message.parts.parts]


def _read_large(frame: bytes) -> Piece | None:
    """The only piece of a frame that `_write_large` could have written; None for any other: protobuf looks at it."""
    fields = [0, 0, 0, 0]  # channel, op, sequence, nbytes
    try:
        at = _enter(frame, 0, 0x12)
        at = _enter(frame, at, 0x0A)
        for number in range(4):
            if frame[at] == (number + 1) << 3:
                fields[number], at = _read_varint(frame, at + 1)
        at = _enter(frame, at, 0x2A)
    except (IndexError, FrameError):
        return None
    channel, op, sequence, nbytes = fields
    if max(channel, op) >= 1 << 32 or max(sequence, nbytes) >= 1 << 64:
        return None
    return Piece(channel, op, sequence, nbytes, memoryview(frame)[at:])


def _enter(frame: bytes, at: int, tag: int) -> int:
    """Where the contents of the field `tag`, which must fill the rest of the frame, begin."""
    length, start = _read_varint(frame, at + 1)
    if frame[at] != tag or start + length != len(frame):
        raise FrameError("another layout")
    return start


def _read_varint(frame: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = frame[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise FrameError("a number of more than 10 bytes")
