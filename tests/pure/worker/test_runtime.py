"""The machine's clocks, threads and chance are used through `Runtime`, but where it is said why."""

from __future__ import annotations

import ast
import queue
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from selfheal_worker.randomness import RANDOM
from selfheal_worker.runtime import REAL

TOP = Path(__file__).parents[3] / "worker" / "selfheal_worker"
_MACHINE = frozenset(
    {
        *("threading", "time", "random", "queue", "concurrent", "multiprocessing", "asyncio"),
        *("secrets", "uuid", "sched", "signal", "_thread", "selectors"),
    }
)
#: Module -> what of the machine it uses directly, and why.
DIRECT = {
    "runtime.py": ({"threading", "time", "random", "queue"}, "it has the machine's own"),
    "randomness.py": ({"random", "uuid"}, "the machine's generator; new_id is given another"),
    "intake.py": ({"random"}, "the type of the generator that it is given"),
    "model/probe.py": ({"queue"}, "queue.Empty, which the runtime's queues raise"),
    "model/call_network.py": (
        {"threading", "time", "concurrent"},
        "the machine's own network; another one is injected as `ModelConfig.network`",
    ),
    "health.py": ({"threading"}, "the HTTP server; `Worker.status` has what it shows"),
    "logs.py": ({"time"}, "writes the date of a log record, which has one already"),
    "broker/session.py": ({"time"}, "the commands' connection; they end by themselves"),
    "cli/stop.py": ({"signal", "threading"}, "a command is the whole process"),
    "cli/evaluate.py": ({"concurrent", "threading", "time"}, "a command is the whole process"),
    "cli/publish_results.py": ({"threading", "time"}, "a command is the whole process"),
    "cli/analyze.py": ({"time"}, "a command is the whole process"),
    "cli/topology.py": ({"time"}, "a command is the whole process"),
    "cli/answer_cache.py": ({"threading"}, "a command is the whole process"),
    "cli/dead_letters.py": ({"time"}, "a command is the whole process"),
    "__main__.py": ({"signal"}, "the process itself"),
}


def _used(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


def test_each_direct_use_of_the_machine_has_its_reason() -> None:
    found = {
        path.relative_to(TOP).as_posix(): used
        for path in sorted(TOP.rglob("*.py"))
        if (used := _MACHINE & set(_used(path)))
    }
    assert found == {name: used for name, (used, _) in DIRECT.items()}
    assert all(why for _, why in DIRECT.values())


def test_the_real_runtime_is_the_standard_library_itself() -> None:
    assert (REAL.monotonic, REAL.time, REAL.sleep) == (time.monotonic, time.time, time.sleep)
    assert type(REAL.lock()) is type(threading.Lock())
    assert type(REAL.rlock()) is type(threading.RLock())
    assert type(REAL.event()) is threading.Event
    assert type(REAL.condition(REAL.rlock())) is threading.Condition
    assert type(REAL.queue()) is queue.SimpleQueue
    assert REAL.random is RANDOM


def test_a_thread_is_a_daemon_of_its_name() -> None:
    seen: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()

    def target() -> None:
        thread = threading.current_thread()
        seen.put((thread.name, thread.daemon))

    REAL.start("handler-7", target)
    assert seen.get(timeout=60) == ("handler-7", True)
