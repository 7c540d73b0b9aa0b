"""Reads what stands behind pods (`owner_of`), when `owner_reads` says so.

`_read` runs in a worker, all else on the main thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.owner_reads import SOON, OwnerReads
from selfheal_remediator.healing.owners import owner_of
from selfheal_remediator.healing.plan import Owner
from selfheal_remediator.healing.pod_health import WatchedPod
from selfheal_remediator.healing.term import Term
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Purpose, Workers

log = logging.getLogger(__name__)

#: An owner is read at least so often (seconds).
OWNER_EVERY = 600.0


class OwnerLookups:
    """interval: seconds between evaluations; owners that are rolled out are read as often."""

    def __init__(
        self,
        api: KubernetesApi,
        workers: Workers,
        term: Term,
        healing: Healing,
        interval: float,
        clock: Callable[[], float],
    ) -> None:
        self._api, self._workers, self._term = api, workers, term
        self._healing, self._interval, self._clock = healing, interval, clock
        self._reads = OwnerReads(workers.runtime.random.random)

    def needed(self, pod: WatchedPod, now: float) -> None:
        """Nothing is known of the pod's owner."""
        self._reads.needed(pod, now)

    def changed(self, pod: WatchedPod, now: float) -> None:
        """A pod came or went."""
        self._reads.changed(pod, now)

    @property
    def wake(self) -> float | None:
        """When the next one is to be read."""
        return self._reads.wake

    def read_due(self, now: float) -> None:
        """Begin the reads that are due."""
        for pod in self._reads.due(now):
            if self._healing.retire(pod.owner_uid):
                self._reads.forget(pod.owner_uid)
                continue
            # Reads that hang, again and again, leave room for those of other owners.
            key = "failing" if self._reads.failures(pod.owner_uid) else ""
            self._workers.submit(partial(self._read, pod), Purpose.LOOKUPS, key)

    def _read(self, pod: WatchedPod) -> None:
        owner, failure = None, None
        try:
            what, runtime = f"the read of the owner of {pod.name}", self._workers.runtime
            with supervision.expected("worker", what, runtime=runtime):
                owner = owner_of(pod, self._api.controller)
        except ApiFailure as error:
            failure = error
        self._term.post(partial(self._settled, pod, owner, failure))

    def _settled(self, pod: WatchedPod, owner: Owner | None, failure: ApiFailure | None) -> None:
        if failure is not None:
            self._failed(pod, failure)
            return
        uid, now = pod.owner_uid, self._clock()
        self._healing.owner_known(uid, owner)
        if owner is None:
            self._reads.forget(uid)
            return
        # Spread, so that all that was read at the start is not read again at once.
        again = OWNER_EVERY * self._workers.runtime.random.uniform(0.7, 1.0)
        if owner.rolling or owner.stopped:
            again = max(SOON, self._interval)
        self._reads.done(uid, now + again)

    def _failed(self, pod: WatchedPod, failure: ApiFailure) -> None:
        uid = pod.owner_uid
        if not self._healing.has_pods_of(uid) and uid not in self._healing.owners:
            self._reads.forget(uid)  # no longer needed
            return
        delay = self._reads.failed(uid, self._clock())
        log.warning(
            "the owner of pod %s/%s cannot be read, tried again in %.0fs: %s",
            pod.namespace,
            pod.name,
            delay,
            failure,
        )
