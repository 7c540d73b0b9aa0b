"""Whether an autoscaler is active, by what it writes into the cluster.

cluster-autoscaler holds a Lease and writes its status into a ConfigMap about every ten seconds;
where the cloud runs it (GKE, AKS) only the ConfigMap is in the cluster. Karpenter holds a Lease.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from datetime import datetime

from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.objects import Json, timestamp
from selfheal_remediator.kube.responses import understood

log = logging.getLogger(__name__)

#: Leases of autoscalers, in the namespaces where they stand by default.
LEASES = frozenset({"cluster-autoscaler", "karpenter-leader-election"})
LEASE_NAMESPACES = ("kube-system", "karpenter")
#: cluster-autoscaler's status ConfigMap (--write-status-configmap, on by default).
STATUS_NAMESPACE, STATUS_NAME = "kube-system", "cluster-autoscaler-status"
_UPDATED_KEY = "cluster-autoscaler.kubernetes.io/last-updated"
#: What was written so lately (seconds) was written by a running process, whatever the clocks
#: differ.
WRITTEN_WITHIN = 300.0
#: Go's way to print a time: `2026-09-15 04:05:52.354884346 +0000 UTC`.
_GO_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(?:\.\d+)?\s*(Z|[+-]\d\d:?\d\d)")


def autoscaler_runs(api: KubernetesApi, now: float) -> bool:
    """Whether an autoscaler renews its Lease or its status; no when neither can be read."""
    return _tells(lambda: _lease_renewed(api, now), "Leases") or _tells(
        lambda: _status_written(api, now), f"ConfigMap {STATUS_NAMESPACE}/{STATUS_NAME}"
    )


def _tells(look: Callable[[], bool], what: str) -> bool:
    try:
        return look()
    except ApiFailure as failure:
        log.warning(
            "%s cannot be read, so no autoscaler is detected (set drain.autoscaler: present if "
            "there is one): %s",
            what,
            failure,
        )
        return False


def _lease_renewed(api: KubernetesApi, now: float) -> bool:
    return any(
        _renewed(raw, now)
        for namespace in LEASE_NAMESPACES
        for raws, _ in api.leases_in(namespace).pages()
        for raw in raws
    )


def _renewed(raw: Json, now: float) -> bool:
    with understood("a Lease"):
        name, spec = raw["metadata"]["name"], raw.get("spec") or {}
        renewed = timestamp(spec.get("renewTime"))
        cordoned = name in LEASES and bool(spec.get("holderIdentity"))
    return cordoned and renewed is not None and now - renewed < WRITTEN_WITHIN


def _status_written(api: KubernetesApi, now: float) -> bool:
    raw = api.config_map(STATUS_NAMESPACE, STATUS_NAME)
    written = status_time(raw) if raw is not None else None
    return written is not None and now - written < WRITTEN_WITHIN


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
