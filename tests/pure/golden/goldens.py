"""All golden files: where each is, and what it should hold now."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from tests.pure.golden import charts, programs
from tests.pure.golden.scenarios import SCENARIOS
from tests.pure.golden.world import World

FILES = Path(__file__).parent / "files"
WRITE = ".venv/bin/python -m tests.pure.golden write"


def scenario(name: str) -> str:
    """What a scenario shows."""
    world = World()
    try:
        SCENARIOS[name](world)
        return world.record()
    finally:
        world.close()


def differences(path: Path, now: str) -> str:
    """A unified diff of the golden file and what is now, with the command that takes it over."""
    there = path.read_text(encoding="utf-8") if path.exists() else ""
    if there == now:
        return ""
    lines = difflib.unified_diff(
        there.splitlines(), now.splitlines(), f"golden {path.name}", "now", lineterm="", n=1
    )
    return "\n".join([*lines, f"if this is as wanted: {WRITE}, and have the change reviewed"])


def write(path: Path, make: Callable[[], str]) -> bool:
    """Write a golden file again; returns whether it changed."""
    text = make()
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return True


def remediator_files() -> dict[Path, Callable[[], str]]:
    """Each scenario's file, and how it is made."""

    def make(name: str) -> Callable[[], str]:
        return lambda: scenario(name)

    return {FILES / "remediator" / f"{name}.txt": make(name) for name in SCENARIOS}


def everything() -> dict[Path, Callable[[], str]]:
    """Every golden file, and how it is made."""
    return {
        **remediator_files(),
        FILES / "metrics.txt": programs.metrics,
        FILES / "reasons.txt": lambda: programs.reasons(FILES / "remediator"),
        FILES / "plan.txt": programs.plan,
        FILES / "status.txt": programs.status,
        FILES / "uncordon.txt": programs.uncordon,
        FILES / "analyze.txt": programs.analyze,
        **{FILES / "chart" / f"{name}.txt": make for name, make in charts.cases().items()},
    }
