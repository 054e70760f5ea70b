"""How cffi compiles the native kernels; setup.py points here.  native.h is both the C header and what cffi reads."""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

_HERE = Path("mpcnode") / "kernels"  # relative to setup.py, as setuptools wants it
_SOURCES = ("isa.c", "matmul.c", "conv.c", "shares.c", "fused.c", "planes.c", "dcf.c")


def _declarations() -> str:
    """native.h without its preprocessor lines."""
    text = (Path(__file__).parent / "native.h").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


ffibuilder = FFI()
ffibuilder.cdef(_declarations())
ffibuilder.set_source(
    "mpcnode.kernels._native",
    '#include "native.h"',
    sources=[(_HERE / name).as_posix() for name in _SOURCES],
    depends=[(_HERE / name).as_posix() for name in ("native.h", "isa.h", "panels.h", "tiles.h")],
    include_dirs=[_HERE.as_posix()],
    optional=True,  # without a C compiler the installation succeeds and reference.py serves
)
