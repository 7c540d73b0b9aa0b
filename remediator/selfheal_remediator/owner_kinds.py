"""Kinds of controllers, as a user names them: `apps.kruise.io/DaemonSet`. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

_GROUP = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_OWNER_KIND = re.compile(f"({_GROUP}/)?[A-Z][A-Za-z0-9]{{0,62}}")


def parse_owner_kind(value: object) -> str:
    """`group/Kind`, or `Kind` for the core group. Raises ValueError with what is allowed."""
    if not isinstance(value, str) or _OWNER_KIND.fullmatch(value) is None:
        raise ValueError(
            f"{str(value)[:100]!r} is not a kind of controller; allowed is its API group and kind "
            "without the version, such as apps.kruise.io/DaemonSet (the core group: the kind alone)"
        )
    return value


def owner_kind(api_version: str, kind: str) -> str:
    """What a user calls the kind of an ownerReference; empty = there is no owner."""
    group, _, _ = api_version.rpartition("/")
    return f"{group}/{kind}" if group else kind


def is_one_of(api_version: str, kind: str, named: Collection[str]) -> bool:
    """Whether the owner is of one of the named kinds, whatever its version."""
    return bool(kind) and bool(named) and owner_kind(api_version, kind) in named
