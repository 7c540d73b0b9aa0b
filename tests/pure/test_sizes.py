"""How large a file, a class and a function may be, so that each can be read at once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE, CLASS, FUNCTION, ATTRIBUTES = 500, 300, 60, 12
#: What is larger, and how much larger it may be: these numbers may only go down.
LARGER: dict[str, int] = {}


def _sources() -> Iterator[tuple[str, ast.Module, int]]:
    for program in ("worker", "remediator"):
        top = ROOT / program / f"selfheal_{program}"
        for path in sorted(top.rglob("*.py")):
            text = path.read_text(encoding="utf-8")
            yield f"{program}/{path.relative_to(top)}", ast.parse(text), text.count("\n")


def _attributes(node: ast.ClassDef) -> int:
    """How many attributes a class has: those that it declares, and those that it sets on self."""
    names = {
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    for item in ast.walk(node):
        if (
            isinstance(item, ast.Attribute)
            and isinstance(item.ctx, ast.Store)
            and isinstance(item.value, ast.Name)
            and item.value.id == "self"
        ):
            names.add(item.attr)
    return len(names)


def _measured() -> Iterator[tuple[str, int, int]]:
    """Each thing with its size and what is allowed."""
    for name, tree, lines in _sources():
        yield name, lines, FILE
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                allowed = CLASS if isinstance(node, ast.ClassDef) else FUNCTION
                yield f"{name}:{node.name}", size, allowed
            if isinstance(node, ast.ClassDef) and not _is_value(node):
                yield f"{name}:{node.name}.attributes", _attributes(node), ATTRIBUTES


def _is_value(node: ast.ClassDef) -> bool:
    """A dataclass, a named tuple or a model of settings: its fields are its content."""
    decorators = {ast.unparse(item).split("(")[0] for item in node.decorator_list}
    bases = {ast.unparse(item) for item in node.bases}
    return "dataclass" in decorators or bool(
        bases & {"_Strict", "Strict", "BaseSettings", "BaseModel", "NamedTuple"}
    )


def test_nothing_is_larger_than_it_may_be() -> None:
    too_large = {
        name: size for name, size, allowed in _measured() if size > LARGER.get(name, allowed)
    }
    assert not too_large


def test_what_was_too_large_is_named_only_while_it_is() -> None:
    allowed = {name: limit for name, _, limit in _measured()}
    sizes: dict[str, int] = {}
    for name, size, _ in _measured():
        sizes[name] = max(size, sizes.get(name, 0))
    for name, larger in LARGER.items():
        assert allowed.get(name, larger) < sizes.get(name, 0) <= larger, name
