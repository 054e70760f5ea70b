"""jax.numpy: shapes, joins, places and choices; and what takes no secret at all."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from function_table import ABOVE, ANY, COUNT, EXACT, STEEP, UNITS, Module

NP = Module("jax.numpy", jnp)
PUBLIC = np.arange(-12, 12).reshape(4, 6).astype(np.float32)
ROWS, COLUMN = np.array([2, 0]), np.array([[2], [0], [1], [1]])
SIZE = "the shape of a result would depend on secret data; pass size="
PYTHON = "Python asks for the value of an array that is secret"

NP.row(
    "ravel transpose permute_dims matrix_transpose flip fliplr flipud rot90 squeeze copy array asarray",
    ANY,
    gradient=EXACT,
    call=lambda f, x: f(x, (1, 0)) if f is jnp.permute_dims else f(x),
)
NP.row("atleast_1d atleast_2d atleast_3d tril triu diagonal", ANY, gradient=EXACT)
NP.row("astype", ANY, call=lambda f, x: f(x, jnp.int32), mind="towards zero")
NP.row("reshape", ANY, gradient=EXACT, call=lambda f, x: f(x, (2, 12)))
NP.row("resize", ANY, gradient=EXACT, call=lambda f, x: f(x, (5, 5)))
NP.row("expand_dims", ANY, gradient=EXACT, call=lambda f, x: f(x, 0))
NP.row("moveaxis swapaxes", ANY, gradient=EXACT, call=lambda f, x: f(x, 0, 1))
NP.row("rollaxis", ANY, gradient=EXACT, call=lambda f, x: f(x, 1))
NP.row("broadcast_to", ANY, gradient=EXACT, call=lambda f, x: f(x, (2, 4, 6)))
NP.row("broadcast_arrays", ANY, gradient=EXACT, call=lambda f, x: f(x, PUBLIC[0]))
NP.row("concatenate concat stack hstack vstack dstack column_stack", ANY, gradient=EXACT, call=lambda f, x: f([x, x]))
NP.row("block", ANY, gradient=EXACT, call=lambda f, x: f([[x, x], [x, x]]))
NP.row("append", ANY, gradient=EXACT, call=lambda f, x: f(x, 1.0))
NP.row("split array_split hsplit vsplit", ANY, gradient=EXACT, call=lambda f, x: f(x, 2))
NP.row("dsplit", ANY, gradient=EXACT, call=lambda f, x: f(x[None], 2))
NP.row("unstack", ANY, gradient=EXACT)
NP.row("tile", ANY, gradient=EXACT, call=lambda f, x: f(x, 2))
NP.row("repeat", ANY, gradient=EXACT, call=lambda f, x: f(x, 2, 0))
NP.row("roll", ANY, gradient=EXACT, call=lambda f, x: f(x, 1, 1))
NP.row("pad", ANY, gradient=EXACT, call=lambda f, x: f(x, 1))
NP.row("delete", ANY, gradient=EXACT, call=lambda f, x: f(x, 1, 0))
NP.row("insert", ANY, gradient=EXACT, call=lambda f, x: f(x, 1, 5.0, 0))
NP.row("diag diagflat", ANY, gradient=EXACT, call=lambda f, x: f(x[0]))
NP.row("meshgrid", ANY, gradient=EXACT, call=lambda f, x: f(x[0], x[1]))
NP.row("ix_", ANY, call=lambda f, x: f(x[0]))

# ---- places and choices ----------------------------------------------------------------------------------------------
NP.row("take", ANY, gradient=EXACT, call=lambda f, x: f(x, ROWS, 1), mind="known places")
NP.row("take", ANY, COUNT, gradient=EXACT, call=lambda f, x, i: f(x[0], i), mind="secret places")
NP.row("take_along_axis", ANY, gradient=EXACT, call=lambda f, x: f(x, COLUMN, 1), mind="known places")
NP.row("take_along_axis", ANY, COUNT, gradient=EXACT, call=lambda f, x, i: f(x, i[:, :1], 1), mind="secret places")
NP.row("put", ANY, gradient=EXACT, call=lambda f, x: f(x, ROWS, 1.0, inplace=False))
NP.row("put_along_axis", ANY, gradient=EXACT, call=lambda f, x: f(x, COLUMN, 1.0, 1, inplace=False))
NP.row("fill_diagonal", ANY, gradient=EXACT, call=lambda f, x: f(x, 1.0, inplace=False))
NP.row("where", ANY, gradient=EXACT, call=lambda f, x: f(x > 0, x, 1.0))
NP.row("select", ANY, gradient=EXACT, call=lambda f, x: f([x > 1, x < -1], [x, -x], 0.0))
NP.row("piecewise", ANY, gradient=EXACT, call=lambda f, x: f(x, [x < 0, x >= 4], [lambda v: -v, lambda v: v]))
NP.row("choose", COUNT, ANY, gradient=EXACT, call=lambda f, i, x: f(i, [x, -x], mode="clip"), mind="mode='clip'")
NP.row(
    "compress",
    ANY,
    gradient=EXACT,
    call=lambda f, x: f(np.array([True, False, True]), x, 0, size=2),
    mind="a known size",
)
NP.row("extract", ANY, gradient=EXACT, call=lambda f, x: f(x > 0, x, size=8), mind="a known size")
NP.row("nonzero flatnonzero argwhere", ANY, call=lambda f, x: f(x > 0, size=8, fill_value=0), mind="a known size")
NP.refused("extract", PYTHON, ANY, call=lambda f, x: f(x > 0, x))
NP.refused("nonzero flatnonzero argwhere", SIZE, ANY, call=lambda f, x: f(x > 0))
NP.refused(
    "place", "secret places that may be the same; pass unique", ANY, call=lambda f, x: f(x, x > 0, 1.0, inplace=False)
)
NP.refused("trim_zeros", PYTHON, ANY, call=lambda f, x: f(x[0]))
NP.row("unravel_index", COUNT, call=lambda f, i: f(i, (2, 3)))
NP.row("ravel_multi_index", COUNT, call=lambda f, i: f((i, i), (6, 6), mode="clip"), mind="mode='clip'")
NP.refused("packbits", "shifts by one known number", ANY, call=lambda f, x: f(x > 0))
NP.refused("unpackbits", "bitwise operations on secret integers", COUNT, call=lambda f, i: f(i.astype(jnp.uint8)))

# ---- functions of functions, and numbers from secret ends ------------------------------------------------------------
NP.row("apply_along_axis", ANY, call=lambda f, x: f(jnp.sum, 0, x))
NP.row("apply_over_axes", ANY, call=lambda f, x: f(jnp.sum, x, [0]))
NP.row("vectorize", ANY, call=lambda f, x: f(lambda v: v + 1)(x))
NP.row("frompyfunc", ANY, call=lambda f, x: f(jnp.add, 2, 1)(x, 1.0))
NP.row("fromfunction", ANY, call=lambda f, x: f(lambda i, j: i + x, (4, 6)))
NP.row("zeros_like ones_like empty_like", ANY)
NP.row("full_like", ANY, call=lambda f, x: f(x, 2.0))
NP.row("linspace", ANY, off=UNITS, call=lambda f, x: f(x[0], x[1], 5))
NP.row("logspace", ANY, off=STEEP, call=lambda f, x: f(x[0] / 8, x[1] / 8, 5))
NP.row("geomspace", ABOVE, off=STEEP, call=lambda f, x: f(x[0], x[1], 5))

NP.aside(
    "makes numbers that are known",
    "arange bartlett blackman diag_indices diag_indices_from empty eye full hamming hanning identity indices kaiser "
    "mask_indices ones tri tril_indices tril_indices_from triu_indices triu_indices_from zeros "
    "from_dlpack frombuffer fromfile fromiter fromstring load",
)
NP.aside(
    "asks for shapes and types, which are known",
    "broadcast_shapes can_cast einsum_path iscomplexobj isdtype isrealobj isscalar issubdtype iterable ndim "
    "promote_types result_type shape size",
)
NP.aside(
    "prints or writes what must not be seen: return it as an output",
    "array_repr array_str get_printoptions printoptions set_printoptions save savez",
)
