"""What is kept of an object that exists. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selfheal_remediator.kube.json_values import as_list, as_name, as_object
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import understood
from selfheal_remediator.restore.drift import Settings, settings_of
from selfheal_remediator.restore.release import Kind, gitops


@dataclass(frozen=True, slots=True)
class Live:
    """guards: uids of the ConfigMaps that own it; off: see Release; settings: of a Deployment."""

    kind: Kind
    name: str
    uid: str
    guards: tuple[str, ...]
    off: str
    settings: Settings | None

    @property
    def key(self) -> str:
        """`Kind/name`."""
        return f"{self.kind.name}/{self.name}"


def live_of(kind: Kind) -> Callable[[Json], Live]:
    """Decodes objects of this kind. The decoder raises Malformed."""

    def decode(raw: Json) -> Live:
        with understood(f"a {kind.name}"):
            meta = as_object(raw["metadata"])
            return Live(
                kind=kind,
                name=as_name(meta["name"]),
                uid=as_name(meta["uid"]),
                guards=guards_of(meta),
                off=gitops(meta),
                settings=settings_of(raw) if kind.name == "Deployment" else None,
            )

    return decode


def guards_of(meta: Json) -> tuple[str, ...]:
    """The uids of the ConfigMaps that own an object."""
    owners = [as_object(owner) for owner in as_list(meta.get("ownerReferences"))]
    return tuple(as_name(owner["uid"]) for owner in owners if owner.get("kind") == "ConfigMap")
