"""Label and field selectors, as query strings and as objects.

The grammar is that of https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
and of apimachinery's pkg/fields; which fields exist is in pkg/registry/core/pod/strategy.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.simulation.cluster.messages import Json

Labels = Mapping[str, str]
_SET = re.compile(r"^\s*(?P<key>[^\s,!=()]+)\s+(?P<op>in|notin)\s*\((?P<values>[^)]*)\)\s*$")
_SPLIT = re.compile(r",(?![^(]*\))")


class BadSelector(ValueError):
    """The server answers 400."""


def labels_of(raw: Json) -> Labels:
    """The labels of an object."""
    return raw["metadata"].get("labels") or {}


def label_query(text: str) -> Callable[[Labels], bool]:
    """The predicate of ?labelSelector=. Raises BadSelector."""
    tests = [_requirement(part.strip()) for part in _SPLIT.split(text) if part.strip()]
    return lambda labels: all(test(labels) for test in tests)


def _requirement(part: str) -> Callable[[Labels], bool]:
    found = _SET.match(part)
    if found:
        key, values = found["key"], {value.strip() for value in found["values"].split(",")}
        if found["op"] == "in":
            return lambda labels: key in labels and labels[key] in values
        return lambda labels: labels.get(key) not in values
    for operator in ("!=", "==", "="):
        if operator in part:
            key, _, value = (piece.strip() for piece in part.partition(operator))
            if operator == "!=":
                return lambda labels: labels.get(key) != value
            return lambda labels: key in labels and labels[key] == value
    if part.startswith("!"):
        return lambda labels: part[1:] not in labels
    if not re.fullmatch(r"[A-Za-z0-9./_-]+", part):
        raise BadSelector(f"unable to parse requirement: {part!r}")
    return lambda labels: part in labels


def selects(selector: Json | None, labels: Labels) -> bool:
    """Whether a LabelSelector matches: None matches nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression(item, labels) for item in selector.get("matchExpressions") or ())


def _expression(item: Json, labels: Labels) -> bool:
    key, values = item["key"], item.get("values") or ()
    match item["operator"]:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise BadSelector(f"{item['operator']!r} is not a valid label selector operator")


def _phase(raw: Json) -> str:
    return str((raw.get("status") or {}).get("phase") or "")


_METADATA: dict[str, Callable[[Json], str]] = {
    "metadata.name": lambda raw: str(raw["metadata"]["name"]),
    "metadata.namespace": lambda raw: str(raw["metadata"].get("namespace") or ""),
}
_FIELDS: dict[str, dict[str, Callable[[Json], str]]] = {
    "pods": {
        "spec.nodeName": lambda raw: str(raw["spec"].get("nodeName") or ""),
        "spec.restartPolicy": lambda raw: str(raw["spec"].get("restartPolicy") or "Always"),
        "status.phase": _phase,
        "status.podIP": lambda raw: str((raw.get("status") or {}).get("podIP") or ""),
    },
    "nodes": {"spec.unschedulable": lambda raw: str(_cordoned(raw)).lower()},
    "events": {
        "involvedObject.name": lambda raw: str(raw["involvedObject"].get("name") or ""),
        "involvedObject.uid": lambda raw: str(raw["involvedObject"].get("uid") or ""),
        "reason": lambda raw: str(raw.get("reason") or ""),
        "type": lambda raw: str(raw.get("type") or ""),
    },
    "namespaces": {"status.phase": _phase},
}


def _cordoned(raw: Json) -> bool:
    return bool(raw["spec"].get("unschedulable"))


def field_query(text: str, plural: str) -> Callable[[Json], bool]:
    """The predicate of ?fieldSelector=. Raises BadSelector."""
    known = {**_METADATA, **_FIELDS.get(plural, {})}
    tests: list[tuple[Callable[[Json], str], str, bool]] = []
    for part in filter(None, text.split(",")):
        found = re.fullmatch(r"([^!=]+)(!=|==|=)(.*)", part)
        if found is None:
            raise BadSelector(f"invalid selector: '{part}'; can't understand '{part}'")
        key, operator, value = found.groups()
        if key not in known:
            raise BadSelector(f"field label not supported: {key}")
        tests.append((known[key], value, operator != "!="))
    return lambda raw: all((read(raw) == value) is wanted for read, value, wanted in tests)


def query(values: Mapping[str, str], plural: str) -> Callable[[Json], bool] | None:
    """The predicate of a request's selectors; None = it takes everything. Raises BadSelector."""
    by_label, by_field = values.get("labelSelector", ""), values.get("fieldSelector", "")
    if not by_label and not by_field:
        return None
    labels_fit, fields_fit = label_query(by_label), field_query(by_field, plural)
    return lambda raw: labels_fit(labels_of(raw)) and fields_fit(raw)


def controller_of(raw: Json) -> dict[str, Any] | None:
    """The owner reference with controller: true."""
    owners = raw["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), None)
