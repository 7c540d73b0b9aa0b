"""JSON and YAML that people wrote, as plain values: strings, numbers, true, false, null, lists and
mappings by strings. Pure.

What JSON cannot carry (NaN, dates, tags), what readers disagree about (keys that are given twice),
and what is made to exhaust a reader (deep nesting, aliases of aliases, numbers of thousands of
digits) is refused with the place where it stands.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import yaml

MAX_DEPTH = 64
# Nodes of a YAML file, those behind an alias counted each time.
_MOST_NODES = 50_000
_MOST_DIGITS = 40
SURROGATE = re.compile("[\ud800-\udfff]")
_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"


class PlainDataError(ValueError):
    """What is wrong, to be put behind the name of a file or variable; quotes at most a key."""


def is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8: it contains no lone surrogate."""
    return SURROGATE.search(value) is None


def read_json(content: str) -> Any:
    """A value from JSON. Raises `PlainDataError`."""
    try:
        found = json.loads(
            content,
            object_pairs_hook=_once_each,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short,
        )
    except json.JSONDecodeError as error:
        raise PlainDataError(f"is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _too_deep() from None
    _check(found)
    return found


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise PlainDataError(f"names {_quoted(twice)} twice in one object")
    return made


def _no_constant(name: str) -> Any:
    raise PlainDataError(f"contains {name}, which is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise PlainDataError("contains a number out of range")
    return number


def _short(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise PlainDataError(f"contains a number of {len(digits)} digits")
    return int(digits)


def _check(found: Any) -> None:
    """Depth and strings of a decoded value, without recursion."""
    waiting = [(found, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise _too_deep()
        if isinstance(value, str) and not is_text(value):
            raise PlainDataError("contains a lone surrogate, which is not a character")
        if isinstance(value, Mapping):
            waiting += [(name, depth) for name in value]
            waiting += [(one, depth + 1) for one in value.values()]
        elif isinstance(value, list):
            waiting += [(one, depth + 1) for one in value]


def read_yaml(content: bytes) -> Any:
    """A value from YAML (or JSON, which is YAML). Raises `PlainDataError`, where it can with the
    line, beginning with "at line"."""
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_depth(content, base)
        loader = base(content)
        try:
            root = loader.get_single_node()
            if root is None:
                return None
            _Nodes(loader).check(root)
            found = loader.construct_document(root)
        finally:
            loader.dispose()
    except PlainDataError:
        raise
    except (yaml.YAMLError, ValueError, ArithmeticError, RecursionError, TypeError) as error:
        mark = getattr(error, "problem_mark", None)
        raise PlainDataError(
            "is not YAML" + (f" at line {mark.line + 1}" if mark else "")
        ) from None
    _check(found)
    return found


def _check_depth(content: bytes, base: Any) -> None:
    """Before it is composed, which is done by recursion."""
    depth = 0
    for event in yaml.parse(content, Loader=base):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _too_deep(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Nodes:
    """Checks composed nodes, each once; an alias is one node in several places."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._sizes: dict[int, int] = {}
        self._open: set[int] = set()

    def check(self, node: Any) -> int:
        """How many values a node has when all aliases are written out. Raises `PlainDataError`."""
        known = self._sizes.get(id(node))
        if known is not None:
            return known
        if id(node) in self._open:
            raise _at(node, "an alias refers to a value that contains it")
        self._open.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            self._scalar(node)
            size = 1
        elif node.tag not in (_TAG + "map", _TAG + "seq"):
            raise _at(node, f"the tag {node.tag.removeprefix(_TAG)} is not allowed; remove it")
        elif isinstance(node, yaml.MappingNode):
            self._keys(node)
            size = 1 + sum(self.check(value) + 1 for _, value in node.value)
        else:
            size = 1 + sum(self.check(item) for item in node.value)
        if size > _MOST_NODES:
            raise _at(node, f"has more than {_MOST_NODES} values, with those behind its aliases")
        self._open.discard(id(node))
        self._sizes[id(node)] = size
        return size

    def _keys(self, node: Any) -> None:
        seen: set[Hashable] = set()
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            if key.tag != _TAG + "str":
                raise _at(key, "a key must be a string; put it in quotes")
            self._scalar(key)
            if key.value in seen:
                raise _at(key, f"{_quoted(key.value)} is given twice")
            seen.add(key.value)

    def _scalar(self, node: Any) -> None:
        kind = node.tag.removeprefix(_TAG)
        if kind in ("str", "null", "merge"):
            return
        if kind == "timestamp":
            raise _at(node, f"{_quoted(node.value)} is a date in YAML; put it in quotes")
        if kind not in ("int", "float", "bool"):
            raise _at(node, f"the tag {kind} is not allowed; remove it")
        if kind == "int" and len(node.value) > _MOST_DIGITS:
            raise _at(node, "a number out of range")
        read: Callable[[Any], Any] = self._loader.construct_object
        try:
            value = read(node)
        except (ValueError, ArithmeticError, KeyError):
            raise _at(node, f"{_quoted(node.value)} is no {kind}") from None
        if isinstance(value, float) and not math.isfinite(value):
            raise _at(node, f"{_quoted(node.value)} is not a JSON number")


def _too_deep(node: Any = None) -> PlainDataError:
    what = f"nested deeper than {MAX_DEPTH} levels"
    return PlainDataError(f"is {what}") if node is None else _at(node, what)


def _at(node: Any, what: str) -> PlainDataError:
    return PlainDataError(f"at line {node.start_mark.line + 1}: {what}")


def _quoted(key: str) -> str:
    return json.dumps(key[:80])
