"""Just enough of RFC 6902 to play the API server."""

import copy
from typing import Any


class TestFailed(Exception):
    """A `test` operation did not hold: the API server would answer 422."""

    __test__ = False


def apply(raw: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """The object after the patch; raises TestFailed, KeyError as the server refuses."""
    done = copy.deepcopy(raw)
    for op in patch:
        *path, last = (
            part.replace("~1", "/").replace("~0", "~") for part in op["path"].split("/")[1:]
        )
        target: Any = done
        for part in path:
            target = target[int(part) if isinstance(target, list) else part]
        if op["op"] == "test":
            if target.get(last) != op["value"]:
                raise TestFailed(op["path"])
        elif op["op"] == "remove":
            del target[int(last) if isinstance(target, list) else last]
        elif isinstance(target, list):
            target.insert(len(target) if last == "-" else int(last), op["value"])
        else:
            target[last] = op["value"]
    return done
