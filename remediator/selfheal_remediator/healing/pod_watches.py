"""The list and watch of each policy's pods.

A `PodWatch` receives in its thread (`policy-pods`) and passes on to the main thread; `PodWatches`
runs on the main thread alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from operator import attrgetter

from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.owner_lookups import OwnerLookups
from selfheal_remediator.healing.pod_health import WatchedPod
from selfheal_remediator.healing.policy import Policy
from selfheal_remediator.healing.term import Term
from selfheal_remediator.healing.unread_pods import watched_or_unread
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.informer import WATCH_LOST, Change, Informer
from selfheal_remediator.threads.runtime import REAL, Runtime

log = logging.getLogger(__name__)


class PodWatch:
    """The pods of one policy."""

    def __init__(
        self,
        api: KubernetesApi,
        policy: Policy,
        term: Term,
        healing: Healing,
        owners: OwnerLookups,
        clock: Callable[[], float],
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self.policy = policy
        self._term, self._healing, self._owners, self._clock = term, healing, owners, clock
        self._stop = runtime.event()
        self.informer: Informer[WatchedPod] = Informer(
            api.pods_labelled(policy.namespace, policy.selector),
            watched_or_unread,
            attrgetter("name"),
            self._received,
            self._stop,
            thread="policy-pods",
            what=f"pods of policy {policy.key}",
            on_sync=self._received_all,
            on_failure=self._failed,
            runtime=runtime,
        )

    # -- in the watch's thread ----------------------------------------------------------

    def _received(self, change: Change[WatchedPod]) -> None:
        self._post(partial(self._changed, change))

    def _received_all(self) -> None:
        self._post(partial(self._healing.pods_known, self.policy.key))

    def _failed(self, failure: ApiFailure) -> None:
        self._post(partial(self._unlisted, f"its pods cannot be watched: {failure}"))

    def _post(self, job: Callable[[], None]) -> None:
        self._term.post(partial(self._unless_ended, job))

    # -- on the main thread -------------------------------------------------------------

    def _unless_ended(self, job: Callable[[], None]) -> None:
        if not self._stop.is_set():
            job()

    def _changed(self, change: Change[WatchedPod]) -> None:
        self._healing.pod_changed(self.policy.key, change)
        pod = change.new or change.old
        if change.new is not None and change.new.unread and not (change.old and change.old.unread):
            log.warning(
                "policy %s: pod %s is left alone until it can be read: %s",
                self.policy.key,
                change.new.id,
                change.new.unread,
            )
        if pod is not None and pod.owner_uid and (change.old is None or change.new is None):
            self._owners.changed(pod, self._clock())

    def _unlisted(self, text: str) -> None:
        policy_state = self._healing.policy_states.get(self.policy.key)
        if policy_state is not None and not policy_state.known:
            self._healing.pods_unknown(self.policy.key, text, self._clock())


class PodWatches:
    """The pods of all policies, by the policy's key."""

    def __init__(
        self,
        api: KubernetesApi,
        term: Term,
        healing: Healing,
        owners: OwnerLookups,
        clock: Callable[[], float],
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._runtime = runtime
        self._api, self._term, self._healing = api, term, healing
        self._owners, self._clock = owners, clock
        self._watches: dict[str, PodWatch] = {}

    def follow(self, policy: Policy) -> None:
        """The policy is new or changed: watch the pods that it selects now."""
        before = self._watches.get(policy.key)
        if before is not None and (before.policy.uid, before.policy.selector) == (
            policy.uid,
            policy.selector,
        ):
            return
        self.end(policy.key)
        if before is not None:
            self._healing.selector_changed(policy.key, self._clock())
        if policy.problem:
            if self._healing.pods_unknown(policy.key, policy.problem, self._clock()):
                log.warning("policy %s: %s", policy.key, policy.problem)
            return
        log.info("policy %s selects the pods %s", policy.key, policy.selector)
        watch = PodWatch(
            self._api,
            policy,
            self._term,
            self._healing,
            self._owners,
            self._clock,
            runtime=self._runtime,
        )
        self._watches[policy.key] = watch
        watch.informer.start()

    def end(self, key: str) -> None:
        """The policy's pods are no longer watched."""
        watch = self._watches.pop(key, None)
        if watch is not None:
            watch.informer.end()

    def end_all(self) -> None:
        """No pods are watched any longer."""
        for key in list(self._watches):
            self.end(key)

    def check_contact(self, now: float) -> None:
        """Nothing is restarted by outdated observations."""
        for key, watch in self._watches.items():
            if self._healing.policy_states[key].known:
                lost = watch.informer.silent_for > WATCH_LOST
                text = f"the watch of its pods has been silent for {WATCH_LOST:g}s" if lost else ""
                self._healing.pods_unknown(key, text, now)
