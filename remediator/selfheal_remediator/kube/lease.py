"""A Lease as a value, and what its annotations say: pause, stop, trusted conditions. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from selfheal_remediator.kube.json_values import (
    as_moment,
    as_name,
    as_object,
    as_text,
    as_whole,
    timestamp,
)
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import understood

PAUSE_KEY = "selfheal.dev/paused"
TRUST_KEY = "selfheal.dev/trust"
#: Until when (RFC 3339) the remediator changes nothing at all: it is being uninstalled.
STOP_KEY = "selfheal.dev/stopped-until"
#: For how many seconds, from its first observation: the uninstaller may have another clock.
STOP_FOR_KEY = "selfheal.dev/stopped-for"
#: A stop that was written to end so long (seconds) ago is of an earlier uninstall.
STOP_FORGOTTEN = 86400.0
LONGEST_STOP = 86400
#: What an int32 of the API holds.
INT32 = 2**31 - 1
LABEL = "selfheal.dev/remediator"


@dataclass(frozen=True, slots=True)
class LeaseView:
    """The part of a Lease that an election needs."""

    name: str
    namespace: str
    uid: str
    version: str
    holder: str
    renewed: str
    transitions: int
    duration: float
    annotations: Mapping[str, str]
    created: float | None

    @property
    def holder_uid(self) -> str:
        """The uid of the pod that holds it: see holder_identity."""
        return self.holder.rpartition("_")[2]


def holder_identity(name: str, uid: str) -> str:
    """What a Lease names as its holder: a pod's name and uid, or something as unique."""
    return f"{name}_{uid}"


def trusted_annotations(annotations: Mapping[str, str]) -> frozenset[str]:
    """Conditions that a human says are true on the Lease, however many nodes have them at once."""
    return frozenset(annotations.get(TRUST_KEY, "").replace(",", " ").split())


def stopped_until(annotations: Mapping[str, str]) -> float:
    """Until when nothing may be changed (seconds since the epoch), 0 = it may.

    It ends by itself, so that one that is installed again does not start stopped.
    """
    try:
        return timestamp(annotations.get(STOP_KEY)) or 0.0
    except ValueError:
        return 0.0


@dataclass(slots=True)
class Stop:
    """Until when (our clock) nothing may be changed, as a Lease's annotations say; 0 = it may.

    A stop without a number of seconds was written by hand: its time counts as it stands.
    """

    until: float = 0.0
    _read: tuple[str, str] = ("", "")

    def read(self, annotations: Mapping[str, str], now: float) -> float:
        """The Lease's current state; the time of an unchanged state continues."""
        text, seconds = annotations.get(STOP_KEY, ""), annotations.get(STOP_FOR_KEY, "")
        if (text, seconds) != self._read:
            self._read = (text, seconds)
            written = stopped_until(annotations)
            counted = re.fullmatch("[0-9]{1,9}", seconds) is not None
            if counted and written > now - STOP_FORGOTTEN:
                written = now + min(int(seconds), LONGEST_STOP)
            self.until = min(written, now + INT32)
        return self.until


@understood("a Lease")
def lease_from_json(raw: Json) -> LeaseView:
    """A LeaseView from the API's JSON. Raises Malformed."""
    meta, spec = as_object(raw["metadata"]), as_object(raw.get("spec"))
    return LeaseView(
        name=as_name(meta["name"]),
        namespace=as_name(meta["namespace"]),
        uid=as_name(meta["uid"]),
        version=as_name(meta["resourceVersion"]),
        holder=as_text(spec.get("holderIdentity")),
        renewed=as_text(spec.get("renewTime")),
        transitions=as_whole(spec.get("leaseTransitions")),
        duration=float(as_whole(spec.get("leaseDurationSeconds"))),
        annotations={
            key: as_text(value) for key, value in as_object(meta.get("annotations")).items()
        },
        created=as_moment(meta.get("creationTimestamp")),
    )
