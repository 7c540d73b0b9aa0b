"""How much an object keeps alive."""

from __future__ import annotations

import gc
from collections import deque
from types import FunctionType, ModuleType


def objects_of(owner: object) -> int:
    """How many objects are kept by it, itself included, and how many items collections have, as
    the garbage collector knows of no keys that are texts. Classes and code are no data."""
    found: dict[int, object] = {}
    more = [owner]
    while more:
        one = more.pop()
        if id(one) in found or isinstance(one, type | ModuleType | FunctionType):
            continue
        found[id(one)] = one
        more += gc.get_referents(one)
    items = (one for one in found.values() if isinstance(one, dict | set | list | deque))
    return len(found) + sum(map(len, items))
