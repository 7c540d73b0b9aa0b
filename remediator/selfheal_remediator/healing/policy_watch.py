"""The list and watch of HealingPolicies.

The methods marked so run in its threads (`policies`), all others on the main thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter

from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.pod_watches import PodWatches
from selfheal_remediator.healing.policy import Policy, policy_from_json
from selfheal_remediator.healing.restart_requests import RestartRequests
from selfheal_remediator.healing.status_writer import StatusWriter, later_version
from selfheal_remediator.healing.term import Term
from selfheal_remediator.healing.when_installed import WhenInstalled
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.informer import Change, Informer
from selfheal_remediator.threads.runtime import REAL, Runtime

log = logging.getLogger(__name__)


class PolicyWatch:
    """Takes in policies: what is new, changed or deleted reaches all other parts from here."""

    def __init__(
        self,
        term: Term,
        healing: Healing,
        pods: PodWatches,
        restarts: RestartRequests,
        statuses: StatusWriter,
        gone: Callable[[str], None],
        clock: Callable[[], float],
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._runtime = runtime
        self._term, self._healing, self._pods = term, healing, pods
        self._restarts, self._statuses = restarts, statuses
        self._gone, self._clock = gone, clock
        self._informers: list[Informer[Policy]] = []
        #: Namespaces whose policies are not listed yet; None = it was not started.
        self._unlisted: set[str] | None = None

    @property
    def listed(self) -> bool:
        """Whether all policies are known that apply."""
        return self._unlisted is not None and not self._unlisted

    def start(
        self, api: KubernetesApi, namespaces: Sequence[str], absent: Callable[[], None]
    ) -> None:
        """Begin to list and watch; absent: their type is not installed."""
        self._unlisted = set(namespaces)
        for namespace in namespaces:
            informer: Informer[Policy] = Informer(
                WhenInstalled(api.policies(namespace), absent),
                policy_from_json,
                attrgetter("key"),
                self._received,
                self._runtime.event(),
                thread="policies",
                what="policies",
                on_sync=partial(self._received_all, namespace),
                runtime=self._runtime,
            )
            self._informers.append(informer)
            informer.start()

    def end(self) -> None:
        """Nothing more is heard of them, or of their pods."""
        for informer in self._informers:
            informer.end()
        self._pods.end_all()

    # -- in the watch's thread ----------------------------------------------------------

    def _received(self, change: Change[Policy]) -> None:
        self._term.post(partial(self.changed, change))

    def _received_all(self, namespace: str) -> None:
        self._term.post(partial(self._listed, namespace))

    # -- on the main thread -------------------------------------------------------------

    def _listed(self, namespace: str) -> None:
        """All of the namespace's policies were read: each time that its watch begins again."""
        if self._unlisted is not None:
            self._unlisted.discard(namespace)

    def changed(self, change: Change[Policy]) -> None:
        """A policy is new, changed or gone."""
        policy = change.new
        if policy is None:
            self._deleted(change.key)
            return
        known = self._healing.policy_states.get(policy.key)
        if change.restored:
            self._statuses.restored(policy.key)
        elif known is not None and known.policy.uid == policy.uid:
            version = later_version(known.policy.version, policy.version)
            policy = replace(policy, version=version)
        self._healing.adopt(policy, self._clock())
        self._pods.follow(policy)

    def _deleted(self, key: str) -> None:
        if key in self._healing.policy_states:
            log.info("policy %s was deleted", key)
        self._restarts.recall_all("its policy was deleted", key)
        self._healing.drop(key)
        self._statuses.forget(key)
        self._pods.end(key)
        self._gone(key)
