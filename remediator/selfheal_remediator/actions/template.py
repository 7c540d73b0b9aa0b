"""The object of a step `resource`: made from its template, and what it shows of its end. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfheal_remediator.external_steps import (
    OCCURRENCE_LABEL,
    PLACEHOLDER,
    Expression,
    ResourceSettings,
    as_shown,
)
from selfheal_remediator.failures import Json
from selfheal_remediator.kube.json_values import as_object, as_objects, as_text

MANAGER_LABEL, MANAGER = "app.kubernetes.io/managed-by", "selfheal-remediator"


def object_from(settings: ResourceSettings, values: Mapping[str, str], occurrence: str) -> Json:
    """The object, with the values in its texts and the occurrence as a label.

    Only texts are replaced, each once: what a value contains makes neither keys nor lists, and is
    no placeholder. Raises KeyError for a placeholder without a value.
    """
    made: Json = _filled(settings.template, values)
    meta = made["metadata"]
    labels = {MANAGER_LABEL: MANAGER, **(meta.get("labels") or {})}
    meta["labels"] = {**labels, OCCURRENCE_LABEL: occurrence}
    return made


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return PLACEHOLDER.sub(lambda found: values[found[1]], value)
    if isinstance(value, dict):
        return {key: _filled(one, values) for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, values) for one in value]
    return value


def shows(raw: Json, expression: Expression) -> tuple[bool, str]:
    """Whether the object shows it, and what it shows instead, for people. Raises TypeError."""
    if expression.condition:
        conditions = as_objects(as_object(raw.get("status")).get("conditions"))
        found = next((one for one in conditions if one.get("type") == expression.condition), None)
        if found is None:
            return False, f"it has no condition {expression.condition}"
        status = as_text(found.get("status"))
        why = " ".join(filter(None, [as_text(found.get("reason")), as_text(found.get("message"))]))
        text = f"{expression.condition} is {status}" + (f" ({why[:150]})" if why else "")
        return status == expression.status, text
    value: object = raw
    for key in expression.path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    shown = as_shown(value)
    if not isinstance(shown, str):
        return False, f"{expression.path} is {'absent' if value is None else 'no text'}"
    return shown in expression.values, f"{expression.path} is {shown[:100]!r}"
