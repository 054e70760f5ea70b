"""Files of numbers, read strictly: CSV, Parquet and NPY become named columns of float64, int64 or bool.

Everything that could not be computed on is refused here, by column and row; the first row of data is row 1.  No
message holds a value, and no cause is chained where a library's own message would quote one.
"""

import csv
import math
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from mpcnode.errors import DataError

Dtype = Literal["float64", "int64", "bool"]
Array: TypeAlias = npt.NDArray[np.float64] | npt.NDArray[np.int64] | npt.NDArray[np.bool_]
Columns: TypeAlias = dict[str, Array]
Reader: TypeAlias = Callable[[Path, BinaryIO, Sequence[str] | None, Sequence[str] | None, str | None], Columns]

# Up to here an integer is exact as float64, and a fixed-point encoding has no hope beyond.
MAX_MAGNITUDE = 2.0**53
_MAX_NAME_LENGTH = 256
# What pyarrow raises for a file that is none of its kind, and numpy also for one that is cut short or promises more
# numbers than there are.
PARQUET_ERRORS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError)
NPY_ERRORS = (ValueError, EOFError, SyntaxError, MemoryError, OverflowError, tokenize.TokenError)
_NO_CSV = {
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
    b"\x1f\x8b": "compressed",
    b"PK\x03\x04": "a spreadsheet or archive",
}


def read(
    path: Path,
    file: BinaryIO,
    names: Sequence[str] | None,
    only: Sequence[str] | None = None,
    without: str | None = None,
) -> Columns:
    """The columns of the open `file`, or those named in `only`, checked and in the file's order.

    `path` says by its suffix what the file is.  `names` are the columns' names where the file itself has none (NPY,
    a CSV without header).  The column `without` may hold anything, and is left away.  DataError says which column and
    row cannot be used.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(sorted(READERS))
        raise DataError(f"{path} is of no kind that can be read: its name must end in one of {known}")
    columns = reader(path, file, names, only, without)
    if not columns or not len(next(iter(columns.values()))):
        raise DataError(f"{path} is empty: it needs at least one column and one row")
    for name, array in columns.items():
        _check_values(path, name, array)
    return columns


def read_keys(path: Path, file: BinaryIO, names: Sequence[str] | None, key: str) -> list[str]:
    """The keys of the open `file`'s rows, whole numbers or text, each as text; in a CSV exactly as they stand there.

    DataError if there is no such column, or if a key is missing or comes twice; it says in which rows, and no key.
    """
    wrong = f"{path} has no column {key!r} to be its key"
    try:
        match path.suffix.lower():
            case ".csv":
                read_options = pa.csv.ReadOptions(column_names=list(names) if names else None)
                convert = pa.csv.ConvertOptions(include_columns=[key], column_types={key: pa.string()})
                column = pa.csv.read_csv(file, read_options=read_options, convert_options=convert)[key]
            case ".parquet":
                column = pa.parquet.ParquetFile(file).read(columns=[key])[key]
            case _:
                column = pa.chunked_array([_read_npy(path, file, names, [key], None)[key]])
    except KeyError:  # of pyarrow too, with a message of its own
        raise DataError(wrong) from None
    except PARQUET_ERRORS:
        raise DataError(f"{wrong} that can be read") from None
    if not (pa.types.is_integer(column.type) or _is_text(column.type)):
        raise DataError(f"{path}: the key {key!r} is {column.type}: it must be whole numbers or text")
    keys = ["" if value is None else str(value) for value in column.to_pylist()]
    _check_keys(path, key, keys)
    return keys


def _check_keys(path: Path, key: str, keys: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for row, value in enumerate(keys, 1):
        if not value.strip():
            raise DataError(f"{path}: the key {key!r} has no value in row {row}: fill it in, or drop the row")
        if first.setdefault(value, row) != row:
            raise DataError(f"{path}: the key {key!r} is the same in rows {first[value]} and {row}: keep one of them")


def dtype_of(array: Array) -> Dtype:
    """The array's type as a schema writes it."""
    return "bool" if array.dtype == np.bool_ else "int64" if array.dtype == np.int64 else "float64"


# ---- readers -------------------------------------------------------------------------------------------------


def _read_csv(
    path: Path, file: BinaryIO, names: Sequence[str] | None, only: Sequence[str] | None, without: str | None
) -> Columns:
    start = file.read(4)
    file.seek(0)
    for magic, kind in _NO_CSV.items():
        if start.startswith(magic):
            raise DataError(f"{path} is {kind}: save it as CSV in UTF-8")
    read_options = pa.csv.ReadOptions(column_names=list(names) if names else None)
    convert = pa.csv.ConvertOptions(include_columns=list(only) if only else None)
    try:
        table = pa.csv.read_csv(file, read_options=read_options, convert_options=convert)
        found = table.column_names
    except pa.ArrowInvalid:
        raise DataError(_csv_complaint(path, file, names)) from None
    except UnicodeDecodeError:
        raise DataError(f"{path} has column names that are not UTF-8: save it as UTF-8") from None
    if names is None:
        _check_header(path, found)
    return _from_arrow(path, table, without)


def _csv_complaint(path: Path, file: BinaryIO, names: Sequence[str] | None) -> str:
    """Read again, slowly, to learn which row has too few or too many fields."""
    file.seek(0)
    rows = filter(None, csv.reader(line.decode("latin-1") for line in file))  # delimiters are ASCII in any case
    try:
        wanted = len(names or next(rows, ()))
        for number, row in enumerate(rows, 1):
            if len(row) != wanted:
                return f"{path} has {len(row)} fields in row {number}, not {wanted}: mend that row"
    except csv.Error:
        pass
    return f"{path} cannot be read as CSV: is it empty, or compressed, or is a quote not closed?"


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Refuse a first row of data where names should stand: names are told to everybody."""
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise DataError(f"{path} separates its fields by something else than commas: save it with commas")
    counted = len(names) > 2 and list(names) == [str(i) for i in range(len(names))]  # as pandas names columns
    if not counted and any(_is_number(name) for name in names):
        raise DataError(f"{path} has numbers where the names of its columns should stand: add them with --columns")


def _read_parquet(
    path: Path, file: BinaryIO, names: Sequence[str] | None, only: Sequence[str] | None, without: str | None
) -> Columns:
    if names is not None:
        raise DataError(f"{path} names its columns itself: leave --columns away")
    try:
        parquet = pa.parquet.ParquetFile(file)
        _check_names(path, parquet.schema_arrow.names)
        return _from_arrow(path, parquet.read(columns=list(only) if only else None), without)
    except PARQUET_ERRORS:
        raise DataError(f"{path} cannot be read as Parquet: write it again") from None


def _read_npy(
    path: Path, file: BinaryIO, names: Sequence[str] | None, only: Sequence[str] | None, without: str | None
) -> Columns:
    try:
        array = np.lib.format.read_array(file, allow_pickle=False)
    except NPY_ERRORS:
        raise DataError(f"{path} cannot be read as NPY: save a numeric array with numpy.save") from None
    if array.ndim not in (1, 2):
        raise DataError(f"{path} has {array.ndim} axes: save it as [rows, columns], or [rows] for one column")
    array = array.reshape(len(array), -1) if array.size else array.reshape(0, 0)
    names = names or [f"c{i}" for i in range(array.shape[1])]
    _check_names(path, names)
    if array.size and len(names) != array.shape[1]:
        raise DataError(f"{path} has {array.shape[1]} columns, and --columns names {len(names)}")
    return {
        name: _as_column(path, name, array[:, i])
        for i, name in enumerate(names[: array.shape[1]])
        if name != without and (only is None or name in only)
    }


READERS: dict[str, Reader] = {".csv": _read_csv, ".parquet": _read_parquet, ".npy": _read_npy}


# ---- checks --------------------------------------------------------------------------------------------------


def _check_names(path: Path, names: Sequence[str]) -> None:
    for i, name in enumerate(names, 1):
        if name.startswith("__index_level_") or (not name.strip() and i == 1):
            raise DataError(f"{path} has a column without a name, perhaps row numbers: write it with index=False")
        if not name.strip() or not name.isprintable() or len(name) > _MAX_NAME_LENGTH:
            raise DataError(f"{path}: the name of column {i} is empty, too long or not printable: rename it")
        if name in names[: i - 1]:
            raise DataError(f"{path} has two columns named {name!r}: rename one")


def _from_arrow(path: Path, table: Any, without: str | None) -> Columns:
    _check_names(path, table.column_names)
    columns = {}
    for name in table.column_names:
        if name == without:
            continue
        column = table[name]
        if not len(column):
            return {}
        if pa.types.is_null(column.type) or (column.null_count and _numeric(column.type)):
            row = int(np.argmax(column.is_null().to_numpy())) + 1
            raise DataError(f"{path}: column {name!r} has no value in row {row}: fill it in, or drop row or column")
        if not _numeric(column.type):
            raise DataError(_text_complaint(path, name, column))
        columns[name] = _as_column(path, name, column.to_numpy())
    return columns


def _numeric(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text_complaint(path: Path, name: str, column: Any) -> str:
    what = "encode it as numbers, or leave the column out of the file"
    if not (_is_text(column.type) or pa.types.is_binary(column.type)):
        return f"{path}: column {name!r} is not numeric from row 1 on, it is {column.type}: {what}"
    rows = (i for i, text in enumerate(column.to_pylist(), 1) if text is None or not _is_number(text))
    return f"{path}: column {name!r} is not numeric, first in row {next(rows, 1)}: {what}"


def _is_number(text: str | bytes) -> bool:
    try:
        number = float(text)
    except ValueError:
        return False
    return math.isfinite(number) and "_" not in str(text)  # Python reads 1_000, files do not


def _as_column(path: Path, name: str, array: npt.NDArray[Any]) -> Array:
    """One of the three types, after a look at unsigned integers, which int64 could wrap."""
    if array.dtype == np.bool_:
        return array
    if np.issubdtype(array.dtype, np.integer):
        if array.dtype == np.uint64:
            _refuse_rows(path, name, array > MAX_MAGNITUDE, "is too large")
        return array.astype(np.int64, copy=False)
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float64, copy=False)
    raise DataError(f"{path}: column {name!r} is not numeric from row 1 on: save floats, integers or booleans")


def _check_values(path: Path, name: str, array: Array) -> None:
    if array.dtype == np.bool_:
        return
    _refuse_rows(path, name, ~np.isfinite(array), "is NaN or infinite")
    # Two comparisons, because the absolute value of the least int64 is itself.
    _refuse_rows(path, name, (array > MAX_MAGNITUDE) | (array < -MAX_MAGNITUDE), "is too large")


def _refuse_rows(path: Path, name: str, bad: npt.NDArray[np.bool_], what: str) -> None:
    if bad.any():
        row = int(np.argmax(bad)) + 1
        limit = " (beyond 2^53)" if what == "is too large" else ""
        raise DataError(f"{path}: column {name!r} {what}{limit} in row {row}: correct it, or drop row or column")
