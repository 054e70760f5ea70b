"""The native kernels: an optional extension.  Everything else about the distribution stands in pyproject.toml."""

from __future__ import annotations

import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

COMPILE = ["-std=gnu11", "-O3", "-fno-math-errno"]
OPENMP = ["-fopenmp"]


class BuildKernels(build_ext):
    """build_ext with the options that this compiler has; OpenMP is used where it links."""

    def build_extension(self, ext: Extension) -> None:
        if self.compiler.compiler_type == "unix":
            ext.extra_compile_args = [*COMPILE]
            if self._links(OPENMP):
                ext.extra_compile_args += OPENMP
                ext.extra_link_args = [*OPENMP]
            else:
                self.warn("no OpenMP: the native kernels will use one thread")
        super().build_extension(ext)

    def _links(self, flags: list[str]) -> bool:
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch) / "probe.c"
            source.write_text("#include <omp.h>\nint probe(void) { return omp_get_max_threads(); }\n", encoding="utf-8")
            try:
                objects = self.compiler.compile([str(source)], output_dir=scratch, extra_postargs=flags)
                self.compiler.link_shared_object(objects, str(Path(scratch) / "probe.so"), extra_postargs=flags)
            except (CompileError, LinkError):
                return False
        return True


setup(cffi_modules=["mpcnode/kernels/_build.py:ffibuilder"], cmdclass={"build_ext": BuildKernels})
