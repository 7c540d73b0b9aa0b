"""The writes of our Lease: taken, renewed, released. They are fenced by nothing but themselves:
each is refused by the API server where somebody else has changed the Lease's holder."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import quote

from selfheal_remediator.config import LeaseSettings
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.lease import INT32, LABEL, LeaseView
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.observe_first import FIRST_START_KEY, annotation_to_write
from selfheal_remediator.kube.responses import Answer
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.runtime import REAL, Runtime

log = logging.getLogger(__name__)

#: How long an ending leader waits for its last changes of nodes.
SETTLE_SECONDS = 2.0
_MERGE = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"


class LeaseApi(Protocol):
    """What the election needs of the API (client.KubernetesApi)."""

    def write(
        self,
        method: str,
        path: str,
        body: object,
        *,
        content_type: str = ...,
        timeout: float = ...,
        fenced: bool = ...,
        ignore_dry_run: bool = ...,
    ) -> Answer: ...

    def settle(self, seconds: float) -> bool: ...


class LeaseWrites:
    """Sends them as `identity`. Raises ApiFailure when no answer came."""

    def __init__(
        self,
        api: LeaseApi,
        settings: LeaseSettings,
        namespace: str,
        identity: str,
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._api, self._settings, self.identity = api, settings, identity
        self._runtime = runtime
        self._leases = f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace)}/leases"

    @property
    def _path(self) -> str:
        return f"{self._leases}/{quote(self._settings.name)}"

    def renew(self) -> Answer:
        """Refused with 422 when somebody else holds it."""
        return self._send(
            "PATCH", self._path, [self._still_ours(), self._renewed_now()], _JSON_PATCH
        )

    def take(self, view: LeaseView | None, first_start: str) -> Answer:
        """Take the Lease as observed, or make it (None); 409 = somebody was faster.

        first_start: the installation's, as read before from a Lease.
        """
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(1, round(self._settings.duration)),
            "acquireTime": self._now(),
            "renewTime": self._now(),
            "leaseTransitions": min(view.transitions + 1, INT32) if view else 0,
        }
        meta: dict[str, Any] = {"labels": {LABEL: "true"}}
        first = annotation_to_write(
            view.annotations if view else None,
            was_held=view is not None and bool(view.holder or view.renewed),
            now=self._runtime.time(),
            known=first_start,
        )
        if first is not None:
            meta["annotations"] = {FIRST_START_KEY: first}
        if view is not None:
            meta["resourceVersion"] = view.version
            return self._send("PATCH", self._path, {"metadata": meta, "spec": spec}, _MERGE)
        meta["name"] = self._settings.name
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": meta,
            "spec": spec,
        }
        return self._send("POST", self._leases, body, "application/json")

    def release(self) -> None:
        """Hand the Lease over at once, when nothing of ours is under way any more."""
        if not self._api.settle(SETTLE_SECONDS):
            return  # a change may still be under way: the Lease runs out by itself
        free = _op("replace", "/spec/holderIdentity", "")
        ops = [self._still_ours(), free, self._renewed_now()]
        try:
            with supervision.expected("lease", "the release of the lease", runtime=self._runtime):
                answer = self._send("PATCH", self._path, ops, _JSON_PATCH)
            if not answer.ok:
                log.warning("lease not released: %s", answer.failure())
        except ApiFailure as failure:
            log.warning("lease not released: %s", failure)

    def _renewed_now(self) -> Json:
        return _op("replace", "/spec/renewTime", self._now())

    def _now(self) -> str:
        now = datetime.fromtimestamp(self._runtime.time(), UTC)
        return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _still_ours(self) -> Json:
        return _op("test", "/spec/holderIdentity", self.identity)

    def _send(self, method: str, path: str, body: object, content_type: str) -> Answer:
        return self._api.write(
            method,
            path,
            body,
            content_type=content_type,
            timeout=max(1.0, self._settings.renew_deadline / 2),
            fenced=False,
            ignore_dry_run=True,
        )


def _op(op: str, path: str, value: object) -> Json:
    return {"op": op, "path": path, "value": value}
