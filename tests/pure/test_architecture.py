"""docs/ARCHITECTURE.md names what exists: its files, functions, states and threads."""

from __future__ import annotations

import ast
import re
from enum import Enum
from pathlib import Path

import pytest

from selfheal_remediator.drain.eviction import Step
from selfheal_remediator.healing.policy import State as PolicyState
from selfheal_remediator.node.annotation import Phase
from selfheal_worker.model.breaker import State as BreakerState
from selfheal_worker.shutdown import Phase as ShutdownPhase

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
PROGRAMS = ("worker", "remediator")
PACKAGES = {program: ROOT / program / f"selfheal_{program}" for program in PROGRAMS}


def paths_of(named: str) -> list[Path]:
    """What a path on the page can mean: it begins in a program's package, or in the repository."""
    return [p for top in (*PACKAGES.values(), ROOT) for p in top.glob(named.rstrip("/"))]


def section(title: str) -> str:
    """The text under a heading of any level, up to the next heading of that level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}$", PAGE, re.MULTILINE)
    assert found, f"no heading {title!r}"
    rest = PAGE[found.end() :]
    ends = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: ends.start()] if ends else rest


def names_in(path: Path) -> set[str]:
    """Functions and classes of a module; methods as Class.method."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            functions = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            found.update(f"{node.name}.{item.name}" for item in functions)
    return found


def all_names() -> set[str]:
    paths = [path for program in PROGRAMS for path in (ROOT / program).rglob("*.py")]
    return {name for path in paths for name in names_in(path)}


def test_every_file_that_it_names_exists() -> None:
    named = set(re.findall(r"`(\w[\w-]*/[\w./*-]*|[\w]+\.py)`", PAGE))
    assert len(named) > 60
    missing = [name for name in sorted(named) if not paths_of(name)]
    assert not missing


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_package_and_module_beside_them_is_described(program: str) -> None:
    listed = set(re.findall(r"`(\w+(?:/|\.py))`", section(f"Packages of the {program}")))
    here = {path.name + "/" * path.is_dir() for path in PACKAGES[program].iterdir()}
    assert here - {"__init__.py", "__main__.py", "__pycache__/"} == listed


def test_a_function_is_named_beside_a_file_that_has_it() -> None:
    wrong = []
    for line in PAGE.splitlines():
        for names, path in re.findall(r"((?:`[\w.]+`(?:, | and )?)+) in `([\w/]+\.py)`", line):
            known = {name for one in paths_of(path) for name in names_in(one)}
            wrong += [f"{n} in {path}" for n in re.findall(r"`([\w.]+)`", names) if n not in known]
    assert not wrong


def test_every_method_that_it_names_exists() -> None:
    known = all_names()
    named = set(re.findall(r"`([A-Z]\w+\.[a-z_]\w*)`", PAGE))
    assert len(named) > 10
    assert named <= known, named - known


@pytest.mark.parametrize(
    ("title", "states"),
    [
        ("Node phase", Phase),
        ("One pod's eviction", Step),
        ("HealingPolicy", PolicyState),
        ("Circuit breaker", BreakerState),
        ("Shutdown", ShutdownPhase),
    ],
)
def test_each_state_of_the_code_is_in_its_diagram(title: str, states: type[Enum]) -> None:
    text = section(title)
    names = {s.value if isinstance(s.value, str) else s.name.lower() for s in states}
    if "stateDiagram" not in text:
        assert {name for name in names if f"`{name}`" not in text} == set()
        return
    drawn = {
        state
        for arrow in re.findall(r"^ *(\S+) --> (\S+?):? ", text + " ", re.M)
        for state in arrow
    }
    drawn = {state.rstrip(":") for state in drawn} - {"[*]"}
    assert drawn == names


def started_threads(program: str) -> set[str]:
    """The names of threads as the code gives them, up to the first part that varies."""
    found = set()
    for path in (ROOT / program).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                found |= _names_given(node)
    return found


def _names_given(call: ast.Call) -> set[str]:
    function = ast.unparse(call.func)
    given = [item.value for item in call.keywords if item.arg == "name"]
    if function.endswith("supervision.start") and not given:
        given = call.args[:1]
    elif not function.endswith(("Thread", "supervision.start")):
        return set()
    texts = set()
    for value in given:
        if isinstance(value, ast.JoinedStr):
            value = value.values[0]
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            texts.add(value.value.rstrip("-"))
    return texts


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_thread_that_the_code_starts_is_listed(program: str) -> None:
    rows = [line.split("|")[1] for line in section(program.title()).splitlines() if "|" in line]
    listed = {name for row in rows for name in re.findall(r"`([a-z][\w-]*)", row)}
    known = {re.sub(r"-[A-Z]+$", "", name) for name in listed}
    started = started_threads(program)
    assert started, "no thread was found in the code"
    assert started <= known, started - known
