"""JSON patch (RFC 6902) and merge patch (RFC 7386), as the API server applies them.

It uses evanphx/json-patch: a `test` of a missing member passes only for null; removing or
replacing what is missing is an error, and so is a parent that is missing.
"""

from __future__ import annotations

from typing import Any

from tests.simulation.cluster.messages import Json, clone


class NotApplicable(ValueError):
    """The server answers 422."""


def apply_json_patch(raw: Json, patch: list[Json]) -> Json:
    """The object after the patch. Raises NotApplicable."""
    done: Json = clone(raw)
    for operation in patch:
        try:
            _apply(done, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            if isinstance(error, NotApplicable):
                raise
            raise NotApplicable(f"{operation.get('op')} {operation.get('path')}") from error
    return done


def _apply(document: Json, operation: Json) -> None:
    op, path = operation["op"], operation["path"]
    if op in ("move", "copy"):
        parent, last = _find(document, operation["from"])
        value = clone(_get(parent, last))
        if op == "move":
            _remove(parent, last)
        _add(*_find(document, path), value)
        return
    parent, last = _find(document, path)
    match op:
        case "test":
            there = parent.get(last) if isinstance(parent, dict) else _get(parent, last)
            if there != operation.get("value"):
                raise NotApplicable(f"testing value {path} failed")
        case "add":
            _add(parent, last, clone(operation.get("value")))
        case "replace":
            _get(parent, last)
            if isinstance(parent, list):
                parent[int(last)] = clone(operation.get("value"))
            else:
                parent[last] = clone(operation.get("value"))
        case "remove":
            _remove(parent, last)
        case _:
            raise NotApplicable(f"unexpected kind: {op}")


def _find(document: Json, path: str) -> tuple[Any, str]:
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:])
    target: Any = document
    for part in parents:
        target = _get(target, part)
    if not isinstance(target, dict | list):
        raise NotApplicable(f"{path}: doc is missing path")
    return target, last


def _get(parent: Any, key: str) -> Any:
    return parent[int(key)] if isinstance(parent, list) else parent[key]


def _add(parent: Any, key: str, value: Any) -> None:
    if not isinstance(parent, list):
        parent[key] = value
    elif key == "-":
        parent.append(value)
    elif not 0 <= int(key) <= len(parent):
        raise NotApplicable(f"index {key} out of bounds")
    else:
        parent.insert(int(key), value)


def _remove(parent: Any, key: str) -> None:
    if isinstance(parent, list):
        del parent[int(key)]
    else:
        del parent[key]


def strategic(raw: Json, patch: Json) -> Json:
    """The object after a strategic merge patch: as `merge`, but conditions are merged by their type
    (patchMergeKey in staging/src/k8s.io/api/core/v1/types.go)."""
    wanted = (patch.get("status") or {}).get("conditions")
    if wanted is None:
        return merge(raw, patch)
    there = {one["type"]: one for one in (raw.get("status") or {}).get("conditions") or ()}
    for one in wanted:
        if one.get("$patch") == "delete":
            there.pop(one["type"], None)
        else:
            there[one["type"]] = {**there.get(one["type"], {}), **one}
    status = {**patch["status"], "conditions": list(there.values())}
    return merge(raw, {**patch, "status": status})


def merge(raw: Json, patch: Json) -> Json:
    """The object after a merge patch: null removes, objects are merged, all else replaces."""
    done = dict(raw)
    for key, value in patch.items():
        if value is None:
            done.pop(key, None)
        elif isinstance(value, dict):
            there = done.get(key)
            done[key] = merge(there if isinstance(there, dict) else {}, value)
        else:
            done[key] = clone(value)
    return done
