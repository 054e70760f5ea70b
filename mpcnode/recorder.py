"""Watches one iteration of a loop's body, and makes a tape of it (see tape.py).

A `Recorder` gives the body its arrays, out of blocks of its own, and writes down every operation on them as a call with
its arguments bound: numpy's, as the arrays tell of them (`Traced`); the compiled kernels' and the draws, as those do
(kernels/memory.py).  Arrays live where they did: a block whose array was freed serves the next one, so a tape needs the
memory of one iteration.  Views are nothing to write down.

What is not understood ends the recording, and so does a decision that depends on what an array holds.
"""

from __future__ import annotations

import operator
import weakref
from bisect import bisect
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from mpcnode.kernels.memory import WATCHER
from mpcnode.kernels.prg import Prg
from mpcnode.party import STEP_BYTES
from mpcnode.rounds import Array, Exchange, Inbox, Send, Target, as_bytes

LINE = 64  # bytes: arrays begin at whole cache lines
MOST_BYTES = 32 << 20  # of a tape's arrays: where an iteration needs more, its kernels take nearly all of the time

Call: TypeAlias = "tuple[Callable[..., Any], tuple[Any, ...]]"


class Stop(NamedTuple):
    """Calls up to a stop, and where what is received goes."""

    calls: list[Call]
    what: Exchange
    into: list[Array]


class Tape(NamedTuple):
    """One iteration."""

    steady: list[Array]  # params that are the same for many iterations: as they were given last
    inputs: list[Array]  # where a copy of each param stands
    stops: list[Stop]
    last: list[Call]  # behind the last stop
    outputs: list[Array]
    step: list[bytes]  # the iteration's number as addresses begin with it, which draws read
    blocks: list[Array]  # where all arrays stand: the compiled kernels' arguments are bare pointers into them


class Recorder:
    """Watches one iteration of a body at one party."""

    def __init__(self, step: int) -> None:
        self._step = [step.to_bytes(STEP_BYTES, "big")]
        self._calls: list[Call] = []
        self._stops: list[Stop] = []
        self._free: dict[int, list[Array]] = defaultdict(list)  # blocks by size
        self._blocks: list[Array] = []
        self._ends: list[tuple[int, int]] = []  # where blocks begin and end, in order
        self._bytes = 0
        self.why = ""  # there will be no tape

    def give_up(self, why: str) -> None:
        """The body runs on as ever, and gets no tape; what was written down would only keep arrays alive."""
        self.why = self.why or why
        self._calls.clear()
        for calls, _, into in self._stops:
            calls.clear()
            into.clear()

    def log(self, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Write a call down."""
        if not self.why:
            self._calls.append((function, args))

    # ---- arrays ------------------------------------------------------------------------------------------------------
    def empty(self, shape: Sequence[int] | int, dtype: npt.DTypeLike) -> Array:
        """A new array in a block of its own."""
        lengths = tuple(map(int, shape)) if isinstance(shape, Sequence) else (int(shape),)
        if self.why:
            return np.empty(lengths, dtype)
        kind = np.dtype(dtype)
        size = -(-max(1, kind.itemsize * int(np.prod(lengths, dtype=np.int64))) // LINE) * LINE
        free = self._free[size]
        block = free.pop() if free else self._block(size)
        made = Traced(lengths, kind, block)
        made.block = block
        weakref.finalize(made, free.append, block)
        return made

    def _block(self, size: int) -> Array:
        whole = np.empty(size + LINE, np.uint8)
        start = _address(whole)
        block = whole[-start % LINE :][:size]
        self._blocks.append(block)
        self._ends.insert(bisect(self._ends, (start, 0)), (_address(block), _address(block) + size))
        self._bytes += size
        if self._bytes > MOST_BYTES:
            self.give_up("an iteration needs too much memory")
        return block

    def holds(self, address: int) -> bool:
        """Is there memory of an array of this recorder's?"""
        at = bisect(self._ends, (address, 1 << 64))
        return at > 0 and address < self._ends[at - 1][1]

    def taken(self, x: Array) -> Array:
        """A copy of an array from outside."""
        mine = self.empty(x.shape, x.dtype)
        mine.view(np.ndarray)[...] = x
        return mine

    def alias(self, x: Any) -> Any:
        """What a tape holds of an array: the same memory, which it does not keep from being used again."""
        if not isinstance(x, np.ndarray):
            return x
        owner = x if isinstance(x, Traced) else x.base
        if not isinstance(owner, Traced):
            return x  # a constant, or what was made of constants alone
        offset = -1 if owner.block is None else _address(x) - _address(owner.block)
        if owner.block is None or not 0 <= offset <= owner.block.size:
            self.give_up("an array was made in a way that leaves no trace")
            return x.view(np.ndarray)
        return np.ndarray(x.shape, x.dtype, owner.block, offset, x.strides)

    # ---- calls -------------------------------------------------------------------------------------------------------
    def done(self, function: Callable[..., Any], *args: Any) -> None:
        """Write a call down, and make it."""
        self.log(function, args)
        function(*args)

    def strike(self, function: Callable[..., Any]) -> None:
        """If the last thing done was a call of this, what follows makes it needless."""
        if self._calls and self._calls[-1][0] == function:
            del self._calls[-1]

    def made(self, function: Callable[..., Any], args: Any, options: dict[str, Any], *, out: bool = False) -> Any:
        """The result of a function of arrays.  out: it can be told where to write."""
        given = [x for x in _leaves((args, options)) if isinstance(x, Traced)]
        args, options = _mapped(self.alias, args), _mapped(self.alias, options)
        found = function(*args, **options)
        if not isinstance(found, np.ndarray | np.generic):
            self.give_up(f"{function} makes what is no array")
            return found
        for x in given if isinstance(found, np.ndarray) else ():
            if np.may_share_memory(found, _plain(x)):
                return _view(cast(Array, found), x)
        if self.why:
            return found
        mine = self.empty(found.shape, found.dtype)
        place = self.alias(mine)
        if out:
            self.done(partial(function, **options, out=place), *args)
        else:
            self.done(_into, place, partial(function, **options), args)
        return mine

    def called(self, function: Callable[..., Any], args: Sequence[Any]) -> None:
        """A compiled function is about to be called."""
        self.log(function, tuple(args))

    def drawn(self, prg: Prg, address: bytes, out: Array) -> None:
        """`out` is about to be filled with the randomness of an address, which begins with the iteration's number."""
        if address[:STEP_BYTES] != self._step[0] or not isinstance(out, Traced):
            self.give_up("a draw that is not the iteration's own")
            return
        self.log(_draw, (prg.filler(self.alias(out)), self._step, address[STEP_BYTES:]))

    # ---- stops -------------------------------------------------------------------------------------------------------
    def stopped(self, what: Exchange) -> Exchange:
        """The body stops for this."""
        own = Exchange([Send(peer, self.alias(array), op) for peer, array, op in what.send], list(what.recv), what.when)
        if not self.why:
            self._stops.append(Stop(self._calls, own, []))
            self._calls = []
        return own

    def received(self, got: Inbox | None) -> Inbox:
        """What came, as the body is to have it."""
        mine = [self.taken(x) for x in got or ()]
        if not self.why:
            calls, what, _ = self._stops[-1]
            into = list(map(self.alias, mine))
            targets = [Target(place, as_bytes(place)) for place in into]
            recv = [due._replace(into=target) for due, target in zip(what.recv, targets, strict=True)]
            self._stops[-1] = Stop(calls, what._replace(recv=recv), into)
        return mine

    def tape(self, steady: list[Array], inputs: Sequence[Array], outputs: Sequence[Array]) -> Tape | None:
        """What was recorded; None if not all of it was understood."""
        begins, ends = list(map(self.alias, inputs)), list(map(self.alias, outputs))
        return None if self.why else Tape(steady, begins, self._stops, self._calls, ends, self._step, self._blocks)


class Traced(np.ndarray[Any, Any]):
    """An array of a recorder's, or a view of one: tells it what is done with it."""

    block: Array | None = None
    owner: Traced | None = None  # whose memory this is a view of, where numpy does not know

    def __array_finalize__(self, obj: Any) -> None:
        self.block = getattr(obj, "block", None)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        function, out = ufunc if method == "__call__" else getattr(ufunc, method), options.pop("out", None)
        recorder = WATCHER.get()
        if not isinstance(recorder, Recorder):
            places = {} if out is None else {"out": _mapped(_plain, out)}
            return function(*_mapped(_plain, inputs), **_mapped(_plain, options), **places)
        if out is None:
            return recorder.made(function, inputs, options, out=True)
        [place] = out
        if not isinstance(place, Traced):
            recorder.give_up("an array of the recorder's went into another one")
        into = partial(function, **_mapped(recorder.alias, options), out=recorder.alias(place))
        recorder.done(into, *_mapped(recorder.alias, inputs))
        return place

    def __array_function__(self, function: Any, kinds: Any, args: Any, options: Any) -> Any:
        recorder = WATCHER.get()
        if not isinstance(recorder, Recorder):
            return function(*_mapped(_plain, args), **_mapped(_plain, options))
        return recorder.made(function, args, options)

    def __getitem__(self, key: Any) -> Any:
        recorder = WATCHER.get()
        if isinstance(recorder, Recorder) and not _leads_to_view(key, self.ndim):
            return recorder.made(operator.getitem, (self, key), {})
        return super().__getitem__(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        recorder = WATCHER.get()
        if isinstance(recorder, Recorder):
            recorder.done(operator.setitem, recorder.alias(self), _mapped(recorder.alias, key), recorder.alias(value))
        else:
            super().__setitem__(key, value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def reshape(self, *shape: Any, **options: Any) -> Any:
        found, recorder = super().reshape(*shape, **options), WATCHER.get()
        if not isinstance(recorder, Recorder) or not found.size or np.may_share_memory(_plain(found), _plain(self)):
            return found
        mine = recorder.empty(found.shape, found.dtype)
        recorder.done(operator.setitem, recorder.alias(mine).reshape(self.shape), ..., recorder.alias(self))
        return mine

    def astype(self, dtype: Any, *rest: Any, copy: bool = True, **options: Any) -> Any:  # type: ignore[override]
        recorder = WATCHER.get()
        if not isinstance(recorder, Recorder):
            return _plain(self).astype(dtype, *rest, copy=copy, **options)
        if not copy and self.dtype == dtype:
            return self
        mine = recorder.empty(self.shape, dtype)
        recorder.done(partial(np.copyto, casting="unsafe"), recorder.alias(mine), recorder.alias(self))
        return mine

    def copy(self, order: Any = "C") -> Any:
        return self.astype(self.dtype)

    def _read(self, name: str) -> Any:
        recorder = WATCHER.get()
        if recorder is not None:
            recorder.give_up("what is done depends on what an array holds")
        return getattr(_plain(self), name)()

    def __bool__(self) -> bool:
        return bool(self._read("__bool__"))

    def __int__(self) -> int:
        return int(self._read("__int__"))

    def __index__(self) -> int:
        return int(self._read("__index__"))

    def __float__(self) -> float:
        return float(self._read("__float__"))

    def item(self, *args: Any) -> Any:
        return _plain(self._read("view")).item(*args)

    def tolist(self) -> Any:
        return self._read("tolist")


def _plain(x: Any) -> Any:
    return x.view(np.ndarray) if isinstance(x, Traced) else x


def _view(found: Array, x: Traced) -> Traced:
    """What a function made of an alias of x without copying it."""
    assert x.block is not None
    made = Traced(found.shape, found.dtype, x.block, _address(found) - _address(x.block), found.strides)
    made.block, made.owner = x.block, x
    return made


def _address(x: Array) -> int:
    return int(x.__array_interface__["data"][0])


def _leads_to_view(key: Any, axes: int) -> bool:
    """Does indexing with this key give a view, and not a copy or a number?"""
    keys = key if isinstance(key, tuple) else (key,)
    if not all(k is None or k is Ellipsis or isinstance(k, int | slice | np.integer) for k in keys):
        return False
    return any(not isinstance(k, int | np.integer) for k in keys) or len(keys) < axes


def _mapped(f: Callable[[Any], Any], x: Any) -> Any:
    """x with f of everything in its lists, tuples and dicts."""
    if isinstance(x, tuple | list):
        return type(x)(_mapped(f, y) for y in x)
    return {k: _mapped(f, y) for k, y in x.items()} if isinstance(x, dict) else f(x)


def _leaves(x: Any) -> Iterator[Any]:
    if isinstance(x, tuple | list):
        for y in x:
            yield from _leaves(y)
    elif isinstance(x, dict):
        yield from _leaves(list(x.values()))
    else:
        yield x


# ---- what a tape calls, beside numpy and the kernels -----------------------------------------------------------------
def _into(place: Array, function: Callable[..., Any], args: Sequence[Any]) -> None:
    place[...] = function(*args)


def _draw(fill: Callable[[bytes], None], step: list[bytes], rest: bytes) -> None:
    fill(step[0] + rest)
