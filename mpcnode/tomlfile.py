"""TOML documents as strict models: one sentence when a field is wrong, and writing that is all or nothing."""

import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ValidationError

from mpcnode.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


def read(path: Path, model: type[Model]) -> Model:
    """Read `path` as a `model`; ConfigError names the file and the first field that is wrong."""
    return validate(path, read_document(path), model)


def read_document(path: Path) -> dict[str, Any]:
    """Read `path` as TOML, whatever it holds; ConfigError names the file, and the line that is no TOML."""
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def read_text(path: Path) -> str:
    """Read `path` as UTF-8; ConfigError says which file is missing or unreadable."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def validate(path: Path, document: Mapping[str, Any], model: type[Model]) -> Model:
    """Make a `model` of `document`, the contents of `path`; ConfigError names the file and the field."""
    try:
        # By way of JSON, where pydantic's strict mode takes an array for a tuple.  A date becomes a string: no
        # document of ours has dates, so the field it stands in refuses it or was a string all along.
        return model.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        raise ConfigError(f"{path}: {sentence(error)}") from error


def sentence(error: ValidationError) -> str:
    """The first complaint of `error` as "field: what is wrong", without the offending value."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ""
    for part in first["loc"]:
        if isinstance(part, str) and part.startswith("<"):  # which of several forms a field has
            continue
        field += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if field else part
    limits = first.get("ctx", {})
    problem = {
        "missing": "this field is missing",
        "extra_forbidden": "there is no such field",
        "too_short": f"wants at least {limits.get('min_length')}, and there is {limits.get('actual_length') or 'none'}",
    }.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"{field}: {problem}" if field else problem


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write `document` to `path`: a reader sees the old contents or the new, never a part."""
    write_bytes(path, tomli_w.dumps(document, multiline_strings=True).encode())


def write_bytes(path: Path, contents: bytes) -> None:
    """Replace `path` by `contents` in one step; ConfigError when the folder cannot be written."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
            try:
                new.write(contents)
                new.flush()
                os.fsync(new.fileno())
                Path(new.name).chmod(0o644)  # temporary files are private, and our documents are not
                Path(new.name).replace(path)
            except OSError:
                Path(new.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
