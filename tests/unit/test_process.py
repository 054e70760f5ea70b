"""What a node's process asks of malloc and of OpenMP: in processes of their own, as that is for good."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpcnode import kernels

glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="other C libraries have no such settings"
)
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="elsewhere the system does not say")

PREPARED = """
import ctypes, re, sys, threading
from pathlib import Path
from mpcnode import process

process.prepare()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.fopen.restype, libc.malloc_info.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]

def resident_mib():
    return int(re.search("VmRSS:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1]) / 1024

def use(count, nbytes):
    blocks = [libc.malloc(nbytes) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, nbytes)
    for block in blocks:
        libc.free(block)
"""
RESIDENT = """
before = resident_mib()
use(400, 100_000)
print(resident_mib() - before)
process.give_back()
print(resident_mib() - before)
"""
HEAPS = """
together = threading.Barrier(5)

def work():
    together.wait()
    use(100, 10_000)
    together.wait()

for _ in range(4):
    threading.Thread(target=work).start()
together.wait()
together.wait()
out = libc.fopen(sys.argv[1].encode(), b"w")
libc.malloc_info(0, out)
libc.fclose(out)
"""


def run(code: str, *args: str, **settings: str) -> str:
    """What a process prints that is prepared as a node's; settings: OpenMP's, in its environment."""
    command = [sys.executable, "-c", PREPARED + code, *args]
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**others, **settings})
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@glibc
@linux
def test_what_is_freed_is_kept_until_it_is_given_back() -> None:
    kept, given_back = map(float, run(RESIDENT).split())
    assert kept > 35 > 5 > given_back


@glibc
def test_all_threads_share_one_heap(tmp_path: Path) -> None:
    run(HEAPS, str(tmp_path / "heaps.xml"))
    assert (tmp_path / "heaps.xml").read_text().count("<heap nr=") == 1


@pytest.mark.skipif(kernels.NAME != "native", reason="without compiled kernels there is no OpenMP")
@pytest.mark.parametrize(
    ("settings", "spins"), [({}, "1000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")]
)
def test_threads_that_wait_sleep_soon_unless_told_otherwise(settings: dict[str, str], spins: str) -> None:
    told = run("from mpcnode import kernels", OMP_DISPLAY_ENV="verbose", **settings)
    if "GOMP_SPINCOUNT" not in told:
        pytest.skip("not GNU's OpenMP")
    assert f"GOMP_SPINCOUNT = '{spins}'" in told


PEAKS = """
print(process.peak_mib())
use(1, 200_000_000)
print(process.peak_mib())
process.forget_peak()
print(process.peak_mib())
"""


@linux
def test_peak_memory_is_the_nodes_own_and_the_attempts_own() -> None:
    """Not that of the process that started it, which a child inherits in getrusage's answer."""
    ballast = np.ones(1 << 25)  # 256 MiB
    first, highest, later = map(float, run(PEAKS).split())
    assert 5 < first < highest - 150 < ballast.nbytes / (1 << 20)
    assert later < first + 50
