"""Freed memory is kept while a job runs, and given back after it."""

import subprocess
import sys

import pytest

from mpcnode import allocator

# Four blocks of 3 MiB are freed together: more than glibc keeps by itself.  A page fault is a page mapped anew.
BLOCKS = """
import resource
from pathlib import Path
from mpcnode import allocator

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])

kept = allocator.keep() if {keep} else None
for turn in range(20):
    if turn == 2:
        before = faults()
    blocks = [b"x" * (3 << 20) for _ in range(4)]
    blocks.clear()
full = resident()
again = faults() - before
allocator.release()
print(kept, again, full - resident())
"""


def run(keep: bool) -> list[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKS.format(keep=keep)], check=True, capture_output=True, text=True
    ).stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_freed_memory_is_used_again_and_then_given_back() -> None:
    kept, again, given_kib = run(keep=True)
    if kept != "True":
        pytest.skip("not glibc")
    assert int(again) < 200
    assert int(given_kib) > 10 << 10
    assert int(run(keep=False)[1]) > 5000  # so the settings are what makes the difference


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())  # no mallopt, no malloc_trim
    assert allocator.keep() is False
    allocator.release()
