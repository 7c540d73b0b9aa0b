"""Carries out what `engine` decides, while this process leads.

`Healer` runs on the main thread. Each term of leadership has new parts (`TermParts`), and nothing
is kept beyond it: the next leader reads the policies' statuses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from selfheal_remediator.config import Config
from selfheal_remediator.healing.callbacks import Callbacks
from selfheal_remediator.healing.deletion_reads import DeletionReads
from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.notice_events import events_of
from selfheal_remediator.healing.owner_lookups import OwnerLookups
from selfheal_remediator.healing.plan import Around, Finding, Notice
from selfheal_remediator.healing.pod_watches import PodWatches
from selfheal_remediator.healing.policy_watch import PolicyWatch
from selfheal_remediator.healing.probe_requests import ProbeRequests
from selfheal_remediator.healing.progress_probe import Fetch, ProgressProbe, fetch
from selfheal_remediator.healing.restart_check import CAUSE, REASON
from selfheal_remediator.healing.restart_requests import RestartRequests
from selfheal_remediator.healing.status_writer import StatusWriter
from selfheal_remediator.healing.term import Term
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.custom_resources import GROUP
from selfheal_remediator.moments import earliest
from selfheal_remediator.threads.pool import Post, Workers
from selfheal_remediator.threads.runtime import REAL, Runtime

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TermParts:
    """All that works during one term of leadership."""

    term: Term
    healing: Healing
    owners: OwnerLookups
    statuses: StatusWriter
    deletions: DeletionReads
    restarts: RestartRequests
    probes: ProbeRequests
    pods: PodWatches
    policies: PolicyWatch


class Healer:
    """Pod healing under all policies; see the module."""

    def __init__(
        self,
        api: KubernetesApi,
        config: Config,
        workers: Workers,
        post: Post,
        callbacks: Callbacks,
        clock: Callable[[], float],
        *,
        fetch: Fetch = fetch,
        runtime: Runtime = REAL,
    ) -> None:
        self._fetch, self._runtime = fetch, runtime
        self.config, self.callbacks = config, callbacks
        self._api, self._workers, self._post, self._clock = api, workers, post, clock
        #: Its threads outlive the terms.
        self.probe_workers = Workers(config.policies.progress_concurrency, runtime=runtime)
        self._reported_absent = False
        self._parts = self._made()

    # -- terms of leadership ------------------------------------------------------------

    def begin(self) -> None:
        """This process leads from now on."""
        self.end()
        settings = self.config.policies
        if settings.enabled:
            self._parts.policies.start(self._api, settings.namespaces or ("",), self._absent)

    def end(self) -> None:
        """Nothing more is done; what was known is forgotten."""
        self._parts.term.end()
        self._parts.restarts.recall_all(
            "it was decided in an earlier term of leadership or configuration"
        )
        self._parts.policies.end()
        self._parts = self._made()

    def cancel_ordered(self, why: str) -> None:
        """The restarts that were ordered and not sent yet are decided again."""
        self._parts.restarts.recall_all(why)

    def _made(self) -> TermParts:
        """Parts that know nothing yet."""
        api, workers, clock, settings = self._api, self._workers, self._clock, self.config.policies
        runtime = self._runtime
        if settings.progress_concurrency != self.probe_workers.limit:
            self.probe_workers = Workers(settings.progress_concurrency, runtime=runtime)
        interval, term = settings.evaluation_interval, Term(self._post)
        healing = Healing(interval, rollout_deadline=settings.rollout_deadline)
        owners = OwnerLookups(api, workers, term, healing, interval, clock)
        statuses = StatusWriter(api, workers, term, healing, clock)
        deletions = DeletionReads(api, workers, term, healing, clock)
        restarts = RestartRequests(
            api, workers, term, healing, statuses, deletions, self.callbacks, clock
        )
        pods = PodWatches(api, term, healing, owners, clock, runtime=runtime)
        probe = ProgressProbe(settings.progress_timeout, self._fetch)
        probed, gone = self.callbacks.probed, self.callbacks.gone
        return TermParts(
            term,
            healing,
            owners,
            statuses,
            deletions,
            restarts,
            ProbeRequests(self.probe_workers, probe, term, healing, probed, clock),
            pods,
            PolicyWatch(term, healing, pods, restarts, statuses, gone, clock, runtime=runtime),
        )

    def _absent(self) -> None:
        """In the watch's thread: the CustomResourceDefinition is not there."""
        if not self._reported_absent:
            self._reported_absent = True
            log.warning(
                "HealingPolicies are disabled: the CustomResourceDefinition healingpolicies.%s is "
                "not installed (kubectl apply --server-side -f chart/crds); nodes are still "
                "remediated",
                GROUP,
            )

    # -- what is known ------------------------------------------------------------------

    @property
    def healing(self) -> Healing:
        """What is known of policies and pods, and what is decided."""
        return self._parts.healing

    @property
    def policies(self) -> PolicyWatch:
        """The watch of policies."""
        return self._parts.policies

    @property
    def restarts_in_flight(self) -> int:
        """How many restarts were decided, and are not settled yet."""
        return self._parts.restarts.in_flight

    @property
    def listed(self) -> bool:
        """Whether all policies are known that apply."""
        return self._parts.policies.listed or not self.config.policies.enabled

    @property
    def known(self) -> bool:
        """Whether everything that can be known of the policies and their pods is known.

        A policy that cannot be read, or whose pods cannot be listed, does not block reports
        about the others; and without any policy there is nothing to know.
        """
        return self.listed and all(
            policy_state.known or policy_state.problem
            for policy_state in self.healing.policy_states.values()
        )

    @property
    def findings(self) -> Mapping[str, Finding]:
        """Nodes on which pods of several owners are unhealthy."""
        return self.healing.findings

    # -- acting -------------------------------------------------------------------------

    def advance(self, now: float, *, stopped: str) -> float | None:
        """Evaluate, and start the restarts; returns when to evaluate again."""
        if not self.config.policies.enabled:
            return None
        parts = self._parts
        parts.pods.check_contact(now)
        node_trouble, node_path = self.callbacks.node_trouble, self.callbacks.node_path
        around = Around(node_trouble, node_path, stopped, parts.policies.listed)
        plan = parts.healing.evaluate(now, around)
        for action, skip_reason in plan.recalls:
            parts.restarts.recall(action, skip_reason)
        for notice in plan.notices:
            self._publish(notice)
        for probe in plan.probes:
            parts.probes.send(probe)
        for pod in plan.lookups:
            parts.owners.needed(pod, now)
        for action in plan.restarts:
            parts.restarts.submit(action)
        parts.owners.read_due(now)
        checked = parts.deletions.read_due(now)
        written = parts.statuses.write_due(now)
        return earliest(plan.wake, parts.owners.wake, checked, written)

    def _publish(self, notice: Notice) -> None:
        policy_state = self.healing.policy_states.get(notice.policy)
        if policy_state is None:
            return
        if notice.reason == REASON:
            self.callbacks.refused(CAUSE)
        level = logging.WARNING if notice.warning else logging.INFO
        log.log(level, "%s: %s: %s", notice.policy, notice.reason, notice.message)
        for event in events_of(notice, policy_state.policy):
            self.callbacks.publish(event)
