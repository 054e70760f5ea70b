"""Frames: what protobuf would write, with one copy, and nothing else is read as one."""

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from mpcnode import frames
from mpcnode.frames import FrameError, Piece
from mpcnode.wire import peer_pb2


@pytest.mark.parametrize("size", [0, 1, 200, frames.LARGE - 20, frames.LARGE, 70_000, frames.MAX_DATA])
@pytest.mark.parametrize("numbers", [(1, 0, 0), (2, 300, 1 << 40), (1, (1 << 32) - 1, 127)])
def test_a_frame_is_what_protobuf_writes(size: int, numbers: tuple[int, int, int]) -> None:
    channel, op, sequence = numbers
    data = np.random.default_rng(1).bytes(size)
    piece = Piece(channel, op, sequence, size + 5, data)
    part = peer_pb2.Part(channel=channel, op=op, sequence=sequence, nbytes=size + 5, data=data)  # type: ignore[arg-type]
    written = frames.write([piece])
    assert written == peer_pb2.Frame(parts=peer_pb2.Parts(parts=[part])).SerializeToString()
    read = frames.read(written)
    assert isinstance(read, list)
    assert [p._replace(data=bytes(p.data)) for p in read] == [piece]


@pytest.mark.parametrize("count", [5, 5000])  # read by protobuf, and by hand
def test_many_small_arrays_share_a_frame(count: int) -> None:
    pieces = [Piece(1, op, op, 3, b"abc") for op in range(count)]
    written = frames.write(pieces)
    parts = [peer_pb2.Part(channel=1, op=op, sequence=op, nbytes=3, data=b"abc") for op in range(count)]  # type: ignore[arg-type]
    assert written == peer_pb2.Frame(parts=peer_pb2.Parts(parts=parts)).SerializeToString()
    read = frames.read(written)
    assert isinstance(read, list)
    assert [p._replace(data=bytes(p.data)) for p in read] == pieces


def test_an_array_is_cut_into_pieces() -> None:
    data = bytes(2 * frames.MAX_DATA + 1)
    cut = list(frames.cut(1, 2, 3, data))
    assert [len(piece.data) for piece in cut] == [frames.MAX_DATA, frames.MAX_DATA, 1]
    assert {piece.nbytes for piece in cut} == {len(data)}
    assert [len(piece.data) for piece in frames.cut(1, 2, 3, b"")] == [0]


def test_bytes_that_are_no_frame_are_refused() -> None:
    with pytest.raises(FrameError, match="are the most"):
        frames.read(bytes(frames.MAX_FRAME + 1))
    with pytest.raises(FrameError, match="this version does not know"):
        frames.read(b"")
    with pytest.raises(FrameError, match="no frame"):
        frames.read(b"\xff" * 40_000)


def test_a_large_frame_with_any_byte_changed_reads_as_protobuf_reads_it() -> None:
    whole = frames.write(
        [Piece(1, 7, 9, 20_000, bytes(range(250)) * 80), Piece(2, 300, 0, 0, b""), Piece(1, 7, 10, 3, b"abc")]
    )
    for at in (*range(24), *range(len(whole) - 22, len(whole))):
        for bit in range(8):
            spoilt = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
            try:
                known: Any = peer_pb2.Frame.FromString(spoilt)
            except DecodeError:
                known = None
            try:
                read: Any = frames.read(spoilt)
            except FrameError:
                read = None
            if isinstance(read, list):
                assert known is not None
                parts = [(p.channel, p.op, p.sequence, p.nbytes, p.data) for p in known.parts.parts]
                assert [(*p[:4], bytes(p.data)) for p in read] == parts
            else:
                assert read == known or known.WhichOneof("body") is None
