"""The fields of an object of the API: each is of the type that the API gives it, or refused. Pure.

The API leaves out what is empty, so None counts as empty where a field may be. Nothing else does:
an empty text is no empty list. Each raises TypeError (and ValueError where it says so), of which
`understood` makes a Malformed.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from selfheal_remediator.failures import Json


def timestamp(text: str | None) -> float | None:
    """Seconds since the epoch from an RFC 3339 time; None when absent. Raises ValueError."""
    if not text:
        return None
    if text.startswith("0000-"):
        text = f"0001{text[4:]}"  # Go knows the year 0
    found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if found.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    return found.timestamp()


def interned(mapping: Mapping[str, str] | None) -> dict[str, str]:
    """The strings kept once: thousands of objects have the same ones."""
    return {sys.intern(key): sys.intern(value) for key, value in (mapping or {}).items()}


def as_text(value: object) -> str:
    """A string of the API, which leaves out empty ones. Raises TypeError for anything else."""
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value or ""


def as_name(value: object) -> str:
    """A string that is always there. Raises TypeError."""
    if not isinstance(value, str) or not value:
        raise TypeError(f"{value!r} is no name")
    return value


def as_whole(value: object) -> int:
    """A whole number of the API, which leaves out zeros. Raises TypeError for anything else."""
    if value is not None and type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value or 0


def as_list(value: object) -> list[Any]:
    """A list of the API, which leaves out empty ones. Raises TypeError for anything else."""
    if value is not None and not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value or []


def as_object(value: object) -> Json:
    """An object of the API, which leaves out empty ones. Raises TypeError for anything else."""
    if value is not None and not isinstance(value, dict):
        raise TypeError(f"{value!r} is no object")
    return value or {}


def as_objects(value: object) -> list[Json]:
    """A list of objects. Raises TypeError for anything else."""
    found = as_list(value)
    for item in found:
        if not isinstance(item, dict):
            raise TypeError(f"{item!r} is no object")
    return found


def texts(value: object) -> tuple[str, ...]:
    """A list of strings. Raises TypeError for anything else."""
    return tuple(map(as_text, as_list(value)))


def names(value: object) -> tuple[str, ...]:
    """A list of strings none of which is empty. Raises TypeError for anything else."""
    return tuple(map(as_name, as_list(value)))


def controller_of(meta: Json) -> tuple[str, str, str, str] | None:
    """(kind, API version, name, uid) of an object's controller by its metadata, None = it has none.

    Raises TypeError, also where one of them is missing.
    """
    for owner in as_objects(meta.get("ownerReferences")):
        if as_flag(owner.get("controller")):
            kind, api, name, uid = (
                sys.intern(as_name(owner.get(key))) for key in ("kind", "apiVersion", "name", "uid")
            )
            return kind, api, name, uid
    return None


def as_moment(value: object) -> float | None:
    """A time of the API, None = absent. Raises TypeError, ValueError for anything else."""
    return timestamp(as_text(value))


def as_number(value: object) -> int:
    """A whole number that is always there. Raises TypeError."""
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def as_flag(value: object) -> bool:
    """A boolean of the API, which leaves out false. Raises TypeError for anything else."""
    if value is not None and not isinstance(value, bool):
        raise TypeError(f"{value!r} is no boolean")
    return value is True
