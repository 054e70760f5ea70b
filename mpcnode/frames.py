"""Pieces of arrays as frames of peer.proto, and back.

protobuf copies the bytes of an array four times on their way, so frames of pieces are written here, and large ones read
here, with one copy in all; their bytes are the same.  Everything else goes through protobuf.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from google.protobuf.message import DecodeError

from mpcnode.wire import peer_pb2

MAX_DATA = 1 << 20  # bytes of array data in a frame
MAX_FRAME = MAX_DATA + (1 << 16)  # with the headers of all its parts
LARGE = 1 << 14  # bytes of a frame from which on copying costs more than protobuf saves

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
    parts: list[Data] = [b"", b""]  # the heads of the frame and of its parts, once their lengths are known
    size = 0
    for piece in pieces:
        head = _head(piece)
        length = len(head) + len(piece.data)
        head = b"\x0a" + _varint(length) + head  # Parts.parts
        parts += head, piece.data
        size += len(head) + len(piece.data)
    parts[0] = b"\x12" + _varint(size)  # Frame.parts
    return b"".join(parts)


def _head(piece: Piece) -> bytes:
    """A Part, up to its data.  Zeros and empty data are left out, as protobuf does."""
    channel, op, sequence, nbytes, data = piece
    number = b"\x18" + _varint(sequence) if sequence else b""
    return _two_fields(0x08, channel, 0x10, op) + number + _two_fields(0x20, nbytes, 0x2A, len(data))


@lru_cache(maxsize=4096)
def _two_fields(tag: int, value: int, other_tag: int, other: int) -> bytes:
    """Two fields of a Part, by tag and number.  Remembered: all but the sequence is the same in every iteration."""
    return b"".join(bytes([t]) + _varint(x) for t, x in ((tag, value), (other_tag, other)) if x)


_SHORT = [bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80, value >> 7]) for value in range(1 << 14)]


def _varint(value: int) -> bytes:
    if value < 1 << 14:
        return _SHORT[value]
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
    pieces = _read_pieces(frame) if len(frame) >= LARGE else None
    if pieces is not None:
        return pieces
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


class _Foreign(Exception):
    """Nothing that `write` could have written."""


def _read_pieces(frame: bytes) -> list[Piece] | None:
    """The pieces of a frame that `write` could have written; None for any other: protobuf looks at it."""
    view, pieces = memoryview(frame), []
    try:
        at, end = _enter(frame, 0, len(frame), 0x12)
        if end != len(frame):
            return None
        while at < end:
            at, stop = _enter(frame, at, end, 0x0A)
            pieces.append(_read_part(frame, view, at, stop))
            at = stop
    except (IndexError, _Foreign):
        return None
    return pieces


def _read_part(frame: bytes, view: memoryview, at: int, stop: int) -> Piece:
    fields = [0, 0, 0, 0]  # channel, op, sequence, nbytes
    for number in range(4):
        if at < stop and frame[at] == (number + 1) << 3:
            fields[number], at = _read_varint(frame, at + 1)
    channel, op, sequence, nbytes = fields
    if max(channel, op) >= 1 << 32 or max(sequence, nbytes) >= 1 << 64:
        raise _Foreign
    if at == stop:
        return Piece(channel, op, sequence, nbytes, view[at:at])
    at, end = _enter(frame, at, stop, 0x2A)
    if end != stop:
        raise _Foreign
    return Piece(channel, op, sequence, nbytes, view[at:end])


def _enter(frame: bytes, at: int, end: int, tag: int) -> tuple[int, int]:
    """Where the contents of the field `tag` begin and stop, which is not behind `end`."""
    length, start = _read_varint(frame, at + 1)
    if frame[at] != tag or start + length > end:
        raise _Foreign
    return start, start + length


def _read_varint(frame: bytes, at: int) -> tuple[int, int]:
    value = frame[at]
    if value < 0x80:
        return value, at + 1
    value, shift = value & 0x7F, 7
    while shift < 70:
        at += 1
        byte = frame[at]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at + 1
    raise _Foreign
