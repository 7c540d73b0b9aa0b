"""Whether an autoscaler is active, by what it writes into the cluster.

cluster-autoscaler holds a Lease and writes its status into a ConfigMap about every ten seconds;
where the cloud runs it (GKE, AKS) only the ConfigMap is in the cluster. Karpenter holds a Lease.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.decoding import Unread, UnreadObjects, decode_each, moment
from selfheal_remediator.kube.json_values import as_name, as_text
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import understood

log = logging.getLogger(__name__)

#: Leases of autoscalers, in the namespaces where they stand by default.
LEASES = frozenset({"cluster-autoscaler", "karpenter-leader-election"})
LEASE_NAMESPACES = ("kube-system", "karpenter")
#: cluster-autoscaler's status ConfigMap (--write-status-configmap, on by default).
STATUS_NAMESPACE, STATUS_NAME = "kube-system", "cluster-autoscaler-status"
_UPDATED_KEY = "cluster-autoscaler.kubernetes.io/last-updated"
#: An autoscaler writes every few seconds: one that has not for so long (seconds) does not run.
WRITTEN_WITHIN = 300.0
#: Go's way to print a time: `2026-09-15 04:05:52.354884346 +0000 UTC`.
_GO_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.\d+)?\s*(Z|[+-]\d\d:?\d\d)")


@dataclass(frozen=True, slots=True)
class _Write:
    """The last write that was read of a Lease or status, and when we read it first and last (our
    clock).

    changed: an earlier one had been read shortly before it.
    """

    value: str
    read_at: float
    read_last: float
    changed: bool


class Autoscaler:
    """Whether an autoscaler runs, as far as we have observed. Not thread-safe.

    It writes its times by its own clock, which may differ from ours: what counts is that what it
    writes changes between two reads soon after each other. Until that is known, a time that is not
    long ago counts, also one in our future; but none counts longer than it stays new to us.
    """

    def __init__(self, api: KubernetesApi, clock: Callable[[], float]) -> None:
        self._api, self._clock = api, clock
        self._writes: dict[str, _Write] = {}
        self._reported = UnreadObjects()

    def runs(self, now: float) -> bool:
        """Whether one renews its Lease or its status; no when neither can be read.

        now: seconds since the epoch.
        """
        status = f"ConfigMap {STATUS_NAMESPACE}/{STATUS_NAME}"
        return self._tells(self._lease_renewed, now, "Leases") or self._tells(
            self._status_written, now, status
        )

    def _tells(self, read: Callable[[float], bool], now: float, what: str) -> bool:
        try:
            return read(now)
        except ApiFailure as failure:
            log.warning(
                "%s cannot be read, so no autoscaler is detected (set drain.autoscaler: present "
                "if there is one): %s",
                what,
                failure,
            )
            return False

    def _lease_renewed(self, now: float) -> bool:
        unread: list[Unread] = []
        found = [
            self._active(f"{namespace}/{name}", renewed, moment(renewed), now)
            for namespace in LEASE_NAMESPACES
            for raws, _ in self._api.leases_in(namespace).pages()
            for name, renewed in decode_each(raws, _renewal, unread)
            if name in LEASES and renewed
        ]
        self._reported.log(log, "Lease", unread)
        return any(found)

    def _status_written(self, now: float) -> bool:
        raw = self._api.config_map(STATUS_NAMESPACE, STATUS_NAME)
        written = status_time(raw) if raw is not None else None
        return written is not None and self._active("status", str(written), written, now)

    def _active(self, key: str, value: str, written: float | None, now: float) -> bool:
        """Take in what was read; whether who wrote it runs."""
        read_at, known = self._clock(), self._writes.get(key)
        if known is None or known.value != value:
            changed = known is not None and read_at - known.read_last <= WRITTEN_WITHIN
            known = _Write(value, read_at, read_at, changed)
        known = self._writes[key] = replace(known, read_last=read_at)
        if read_at - known.read_at >= WRITTEN_WITHIN:
            return False
        return known.changed or (written is not None and now - written < WRITTEN_WITHIN)


@understood("a Lease")
def _renewal(raw: Json) -> tuple[str, str]:
    """The Lease's name, and when it was renewed: empty while nobody holds it."""
    spec = raw.get("spec") or {}
    renewed = as_text(spec.get("renewTime"))
    return as_name(raw["metadata"]["name"]), renewed if as_text(spec.get("holderIdentity")) else ""


def status_time(raw: Json) -> float | None:
    """When the status was written (seconds since the epoch), None = it does not say.

    In the annotation, and at the top of `data.status`: as a heading until cluster-autoscaler 1.29,
    as the YAML key `time` since.
    """
    with understood(f"ConfigMap {STATUS_NAME}"):
        annotations = raw["metadata"].get("annotations") or {}
        status = str((raw.get("data") or {}).get("status") or "")
        times = [_go_time(str(annotations.get(_UPDATED_KEY) or ""))]
        heading = re.search(r"^(?:Cluster-autoscaler status at|time:)(.*)$", status, re.MULTILINE)
        times.append(_go_time(heading[1]) if heading else None)
    return max((time for time in times if time is not None), default=None)


def _go_time(text: str) -> float | None:
    found = _GO_TIME.search(text)
    if found is None:
        return None
    day, clock, zone = found.groups()
    try:
        return datetime.fromisoformat(f"{day}T{clock}{zone}").timestamp()
    except ValueError:
        return None
