from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# What a body of 3 MB leaves behind, once blocks of its size were freed before: by itself glibc
# takes the later ones from its heap, where small blocks above them keep them from going back.
SCRIPT = """
from pathlib import Path
import threading
from selfheal_worker import memory
if {kept}:
    memory.keep_flat()

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) // 256

def work(kept):
    for size in range(1, 12):
        large = [b"x" * (size * 1_000_000) for _ in range(4)]
        kept.append(b"y" * 4000)
        del large

kept = []
before = resident()
threads = [threading.Thread(target=work, args=(kept,)) for _ in range(8)]
for one in threads:
    one.start()
for one in threads:
    one.join()
print(resident() - before)
"""


def grown(*, kept: bool) -> int:
    """MiB."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(kept=kept)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    return int(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
def test_memory_of_large_messages_is_returned_to_the_system() -> None:
    assert grown(kept=True) <= 4


LOADED = """
import gc
from selfheal_worker import memory

before = [[]]
memory.keep_loaded()
after = [[]]
memory.keep_loaded()
watched = {id(one) for one in gc.get_objects()}
print(id(before) in watched, id(after) in watched)
"""


def test_the_garbage_collector_looks_only_at_what_came_later() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout.split() == ["False", "True"]
