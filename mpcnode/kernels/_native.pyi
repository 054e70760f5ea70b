"""What cffi makes of native.h: see _build.py."""

from typing import Any

ffi: Any
lib: Any
