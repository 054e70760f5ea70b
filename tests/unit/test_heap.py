"""What the heap of a node's process keeps, and gives back: in processes of their own, as that is for good."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="other C libraries have no such settings"
)

KEEPING = """
import ctypes, re, sys, threading
from pathlib import Path
from mpcnode import heap

heap.keep()
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
heap.give_back()
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


def run(code: str, *args: str) -> str:
    """What a process prints that keeps its heap."""
    done = subprocess.run([sys.executable, "-c", KEEPING + code, *args], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="elsewhere the system does not say")
def test_what_is_freed_is_kept_until_it_is_given_back() -> None:
    kept, given_back = map(float, run(RESIDENT).split())
    assert kept > 35 > 5 > given_back


def test_all_threads_share_one_heap(tmp_path: Path) -> None:
    run(HEAPS, str(tmp_path / "heaps.xml"))
    assert (tmp_path / "heaps.xml").read_text().count("<heap nr=") == 1
