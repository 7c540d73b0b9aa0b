"""docs/ARCHITECTURE.md names what exists: its files, functions, states and threads."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import pytest

from selfheal_remediator.drain.eviction import Step
from selfheal_remediator.healing.policy import State as PolicyState
from selfheal_remediator.node.annotation import Phase
from selfheal_worker.model.breaker import State as BreakerState
from selfheal_worker.shutdown import ShutdownPhase

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
PROGRAMS = ("worker", "remediator")
PACKAGES = {program: ROOT / program / f"selfheal_{program}" for program in PROGRAMS}
#: The sections that are about one program; all others are about both.
SECTIONS = {
    "worker": (
        *("Packages of the worker", "The life of a message", "What a failure does", "Worker"),
        *("Circuit breaker", "Shutdown", "To change the worker", "A new provider"),
        "More modules of the worker",
    ),
    "remediator": (
        *("Packages of the remediator", "The life of a node fault", "The life of a hung pod"),
        "The life of a deleted object",
        *("The controller's parts", "The parts of a drain", "Remediator", "Node phase"),
        *("One pod's eviction", "HealingPolicy", "To change the remediator"),
        *("Nodes that are left alone", "A new skip reason", "A new field of a rule"),
        *("A new reason not to drain", "The waves of a drain"),
        "More modules of the remediator",
    ),
}
PATH = re.compile(r"`(\w[\w-]*/[\w./*-]*|\w+\.py)`")


def paths_of(named: str, programs: tuple[str, ...] = PROGRAMS) -> list[Path]:
    """What a path on the page can mean: it begins in a program's package, or in the repository."""
    tops = (*(PACKAGES[program] for program in programs), ROOT)
    return [p for top in tops for p in top.glob(named.rstrip("/"))]


def sections() -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Heading, the programs that it is about, and the text up to the next heading of any level."""
    parts = re.split(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", PAGE, flags=re.M | re.S), flags=re.M)
    for title, text in zip(parts[1::2], parts[2::2], strict=True):
        about = tuple(program for program in PROGRAMS if title in SECTIONS[program])
        yield title, about or PROGRAMS, text


def section(title: str) -> str:
    """The text under a heading of any level, up to the next heading of that level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}$", PAGE, re.MULTILINE)
    assert found, f"no heading {title!r}"
    rest = PAGE[found.end() :]
    ends = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: ends.start()] if ends else rest


def anchors(page: Path) -> set[str]:
    """What a link can name on a page: its headings as GitHub writes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one).lower().replace(" ", "-") for one in headings}


def names_in(path: Path) -> set[str]:
    """Functions, classes and constants of a module; methods and fields as Class.name."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        found |= _defined(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for item in node.body for name in _defined(item)}
    return found


def _defined(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    names = [name for one in targets for name in ast.walk(one) if isinstance(name, ast.Name)]
    return {name.id for name in names}


def all_names() -> set[str]:
    paths = [path for program in PROGRAMS for path in (ROOT / program).rglob("*.py")]
    return {name for path in paths for name in names_in(path)}


def test_the_sections_about_one_program_are_there() -> None:
    titles = {title for title, _, _ in sections()}
    assert {title for of_program in SECTIONS.values() for title in of_program} <= titles


def test_every_file_that_it_names_is_one_file() -> None:
    """A path is of the section's program, or of the repository: never of two."""
    named = [(one, about) for _, about, text in sections() for one in PATH.findall(text)]
    assert len(named) > 60
    assert [one for one, about in named if not paths_of(one, about)] == []
    assert [one for one, about in named if "*" not in one and len(paths_of(one, about)) > 1] == []


def test_every_link_leads_to_a_heading_or_a_file() -> None:
    pages: dict[Path, set[str]] = {}
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        page = ROOT / "docs" / (path or "ARCHITECTURE.md")
        if page not in pages:
            pages[page] = anchors(page) if page.is_file() else set()
        broken += [target] * (not page.is_file() or (bool(anchor) and anchor not in pages[page]))
    assert len(pages) > 3
    assert broken == []


def test_every_test_that_it_names_is_one_file() -> None:
    pure = ROOT / "tests" / "pure"
    found = [
        (name, [path for top in (*about, ".") for path in (pure / top).glob(f"{name}.py")])
        for _, about, text in sections()
        for name in re.findall(r"`(test_\w+)`", text)
    ]
    assert len(found) > 60
    assert [name for name, paths in found if len(paths) != 1] == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_module_has_a_place_on_it(program: str) -> None:
    """By its path, or in the list of its folder's other modules."""
    top = PACKAGES[program]
    modules = {path for path in top.rglob("*.py") if path.name != "__init__.py"}
    named = {
        path for _, about, text in sections() for one in PATH.findall(text)
        for path in paths_of(one, about)
    }  # fmt: skip
    title = f"More modules of the {program}"
    for folder, names in re.findall(r"`([\w/]+)/`: (.*?)(?=`[\w/]+/`: |\n|$)", section(title)):
        listed = {top / folder / f"{name}.py" for name in re.findall(r"`([a-z]\w*)`", names)}
        named |= listed
        assert listed <= modules, f"{title}: {listed - modules}"
    missing = {str(path.relative_to(top)) for path in modules - named}
    assert not missing, f"add to docs/ARCHITECTURE.md, under {title!r}, what is in: {missing}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_package_and_module_beside_them_is_described(program: str) -> None:
    listed = set(re.findall(r"`(\w+(?:/|\.py))`", section(f"Packages of the {program}")))
    here = {path.name + "/" * path.is_dir() for path in PACKAGES[program].iterdir()}
    assert here - {"__init__.py", "__pycache__/"} == listed


def test_a_function_is_named_beside_a_file_that_has_it() -> None:
    wrong = []
    for line in PAGE.splitlines():
        for names, path in re.findall(r"((?:`[\w.]+`(?:, | and )?)+) in `([\w/]+\.py)`", line):
            known = {name for one in paths_of(path) for name in names_in(one)}
            wrong += [f"{n} in {path}" for n in re.findall(r"`([\w.]+)`", names) if n not in known]
    assert not wrong


def test_every_method_that_it_names_exists() -> None:
    known = all_names()
    named = set(re.findall(r"`([A-Z]\w+\.[a-z_]\w*)`", PAGE)) - {"README.md"}
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


#: How a thread is started; an Informer has one.
STARTS = re.compile(
    r"(\bThread|Timer|ThreadPoolExecutor|supervision\.start|runtime\.start|Informer)$"
)
#: What starts threads whose names are given elsewhere, or that have none of their own: how often.
NAMED_ELSEWHERE = {
    "remediator/selfheal_remediator/threads/runtime.py": 1,
    "remediator/selfheal_remediator/threads/supervision.py": 1,
    "remediator/selfheal_remediator/kube/informer.py": 1,
    "remediator/selfheal_remediator/healing/progress_probe.py": 1,  # a timer
    "worker/selfheal_worker/cli/evaluate.py": 1,  # a command's own
    "worker/selfheal_worker/health.py": 1,  # named once it is made
    "worker/selfheal_worker/runtime.py": 1,
}


def _trees(program: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / program).rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def _starts(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and STARTS.search(ast.unparse(node.func)):
            yield node


def started_threads(tree: ast.Module) -> set[str]:
    """The names of threads as the code gives them, up to the first part that varies."""
    found = set().union(*(_names_given(call) for call in _starts(tree)))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("thread.name"):
            found |= _text(node.value)
    return found


def _names_given(call: ast.Call) -> set[str]:
    keywords = {item.arg: item.value for item in call.keywords}
    if ast.unparse(call.func).endswith("start"):
        keywords.setdefault("name", call.args[0])
    value = keywords.get("name", keywords.get("thread"))
    return set() if value is None else _text(value)


def _text(value: ast.expr) -> set[str]:
    if isinstance(value, ast.JoinedStr):
        value = value.values[0]
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return {value.value.rstrip("-")}
    return set()


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("threading.Thread(target=f, name='a')", {"a"}),
        ("Thread(name=f'b-{n}')", {"b"}),
        ("supervision.start('c', f)", {"c"}),
        ("supervision.start('c', f, name='d')", {"d"}),
        ("self._runtime.start(f'e-{n}', f)", {"e"}),
        ("Informer(x, thread='f', what='')", {"f"}),
        ("Informer(x, thread='f', name=f'g-{n}')", {"g"}),
        ("self._thread = Thread(target=f)\nself._thread.name = 'h'", {"h"}),
        ("self.name = 'i'", set()),
    ],
)
def test_a_thread_is_found_however_it_is_named(code: str, names: set[str]) -> None:
    assert started_threads(ast.parse(code)) == names


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_thread_has_a_name_that_is_found(program: str) -> None:
    unnamed = Counter(
        path for path, tree in _trees(program) for call in _starts(tree) if not _names_given(call)
    )
    assert unnamed == {p: n for p, n in NAMED_ELSEWHERE.items() if p.startswith(program)}
    for path, tree in _trees(program):
        for node in ast.walk(tree):
            bases = [ast.unparse(base) for base in getattr(node, "bases", ())]
            assert not any(base.endswith("Thread") for base in bases), f"{path}: {bases}"


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_thread_that_the_code_starts_is_listed(program: str) -> None:
    rows = [line.split("|")[1] for line in section(program.title()).splitlines() if "|" in line]
    listed = {name for row in rows for name in re.findall(r"`([a-z][\w-]*)", row)}
    known = {re.sub(r"-[A-Z]+$", "", name) for name in listed}
    started = set().union(*(started_threads(tree) for _, tree in _trees(program)))
    assert started, "no thread was found in the code"
    assert started <= known, started - known
