"""Tests go through what the code offers to all its users, so that its inside can be changed.

Private is a name that begins with one underscore. It may be used through `self`, `cls` and
`super()`. A private constant or object of a module may be replaced by monkeypatch.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/**/*.py"))
_PRIVATE = re.compile(r"_[A-Za-z]\w*")
#: os._exit is the documented name of what it does. How pika writes to its sockets, which the
#: worker builds on, can only be counted at pika's own transports.
_ALLOWED = {
    "os._exit",
    *("io_services_utils._AsyncPlaintextTransport", "io_services_utils._AsyncSSLTransport"),
}
#: What every named tuple documents for its users.
_OF_NAMED_TUPLES = {"_replace", "_asdict", "_fields", "_make"}
_BY_NAME = {"getattr", "setattr", "delattr", "hasattr"}


def _is_private(name: str) -> bool:
    return _PRIVATE.fullmatch(name) is not None and name not in _OF_NAMED_TUPLES


def _is_own(value: ast.expr) -> bool:
    """Whether it is the object or the class itself, or what they inherit."""
    if isinstance(value, ast.Call):
        value = value.func
        return isinstance(value, ast.Name) and value.id == "super"
    return isinstance(value, ast.Name) and value.id in ("self", "cls")


def _imported(tree: ast.AST) -> set[str]:
    """The modules that are imported, by the names that they have here."""
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        (alias.asname or alias.name).partition(".")[0] for one in imports for alias in one.names
    }
    return {name for name in names if name == name.lower()}


def _named(call: ast.Call, modules: set[str]) -> str:
    """The private attribute that a call such as `setattr` names by a text; "" if it names none."""
    function = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    function = call.func.id if isinstance(call.func, ast.Name) else function
    constants = [one.value for one in call.args[:2] if isinstance(one, ast.Constant)]
    texts = [value for value in constants if isinstance(value, str)]
    if function not in _BY_NAME or not texts:
        return ""
    owner, _, name = texts[0].rpartition(".")
    if not _is_private(name):
        return ""
    of = call.args[0]
    of_module = isinstance(of, ast.Name) and of.id in modules
    is_module = owner == owner.lower() if owner else of_module
    return "" if is_module or _is_own(of) else ast.unparse(call)


def _private_uses(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    modules = _imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            if not _is_own(node.value) and ast.unparse(node) not in _ALLOWED:
                yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if _is_private(alias.name):
                    yield f"line {node.lineno}: from {node.module} import {alias.name}"
        elif isinstance(node, ast.Call) and (use := _named(node, modules)):
            yield f"line {node.lineno}: {use}"


@pytest.mark.parametrize("module", MODULES)
def test_a_test_uses_no_private_name_of_another(module: str) -> None:
    assert list(_private_uses((ROOT / module).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "made._state",
        "made._state = 1",
        "self.made._state",
        "made()._state",
        "metric.labels('a')._value.get()",
        "import features\nfeatures._cache.clear()",
        "from features import _cache",
        "from features import _cache as cache",
        "getattr(made, '_state')",
        "monkeypatch.setattr(made, '_state', 1)",
        "monkeypatch.setattr(made.parts, '_state', 1)",
        "from features import Table\nmonkeypatch.setattr(Table, '_state', 1)",
        "monkeypatch.setattr('features.Table._state', 1)",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert len(list(_private_uses(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "self._state",
        "cls._state",
        "super()._state()",
        "made.__class__",
        "made.state_",
        "_made.state",
        "import os\nos._exit(0)",
        "import features\nmonkeypatch.setattr(features, '_LIMIT', 1)",
        "monkeypatch.setattr('features._LIMIT', 1)",
        "getattr(self, '_state')",
        "text.replace('a', '_state')",
    ],
)
def test_what_is_ones_own_and_what_is_public_is_not_found(source: str) -> None:
    assert list(_private_uses(source)) == []
