"""Clock, threads and chance come from one module, so that a simulation can give others."""

from __future__ import annotations

import ast
from pathlib import Path

import selfheal_remediator
from selfheal_remediator.threads.runtime import REAL, Empty

HOME = Path(next(iter(selfheal_remediator.__path__)))
#: By which two runs of the same program can differ.
FORBIDDEN = {"threading", "time", "queue", "random", "secrets", "uuid", "concurrent", "asyncio"}
#: What a module beside threads/runtime.py uses of them, and why that differs in no simulation.
ALLOWED = {
    "health.py": {"http.server.ThreadingHTTPServer": "answers probes over real sockets"},
    "healing/progress_probe.py": {
        "threading.Event": "of `fetch`, which a simulation replaces as a whole",
        "threading.Timer": "of `fetch`, which a simulation replaces as a whole",
    },
    "logs.py": {
        "time.gmtime": "formats the time of a record",
        "time.strftime": "formats the time of a record",
    },
    "run.py": {"uuid.uuid4": "names a process outside a pod; a simulation gives it its name"},
    "threads/supervision.py": {"random.Random": "a type"},
}


def uses(path: Path) -> set[str]:
    """What a module takes from the forbidden ones, and moments that it reads by itself."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            if node.module.partition(".")[0] in FORBIDDEN:
                found |= names
            found |= names & {"http.server.ThreadingHTTPServer"}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id in FORBIDDEN and _imports(tree, node.value.id):
                found.add(f"{node.value.id}.{node.attr}")
            if (node.value.id, node.attr) in (("datetime", "now"), ("datetime", "utcnow")):
                found.add(f"datetime.{node.attr}")
            if node.value.id == "os" and node.attr in ("urandom", "getrandom"):
                found.add(f"os.{node.attr}")
    return found


def _imports(tree: ast.AST, module: str) -> bool:
    return any(
        alias.name == module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    )


def test_nothing_else_reads_a_clock_or_starts_a_thread() -> None:
    found = {
        path.relative_to(HOME).as_posix(): names
        for path in sorted(HOME.rglob("*.py"))
        if (names := uses(path)) and path.relative_to(HOME).as_posix() != "threads/runtime.py"
    }
    assert found == {path: set(reasons) for path, reasons in ALLOWED.items()}


def test_no_module_imports_one_without_a_name_that_is_listed() -> None:
    """`import time as t` would go past the list."""
    for path in HOME.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                renamed = [a.name for a in node.names if a.asname and a.name in FORBIDDEN]
                assert not renamed, path


def test_the_real_runtime_has_the_standard_librarys_objects() -> None:
    """Locks are on hot paths."""
    kinds = [type(made()).__module__ for made in (REAL.lock, REAL.rlock, REAL.queue)]
    assert kinds == ["_thread", "_thread", "_queue"]
    assert [type(made()).__module__ for made in (REAL.event, REAL.condition)] == ["threading"] * 2


def test_a_queue_is_empty_in_one_way() -> None:
    waiting = REAL.queue()
    waiting.put(1)
    assert (waiting.qsize(), waiting.get(timeout=1)) == (1, 1)
    try:
        waiting.get_nowait()
    except Empty:
        return
    raise AssertionError("it is empty")
