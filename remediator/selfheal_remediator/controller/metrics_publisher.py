"""Publishes the state as metrics, at most once a second. All methods run on the main thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from selfheal_remediator.controller.authority import Authority
from selfheal_remediator.drain.runner import Draining
from selfheal_remediator.healing.policy_metrics import policy_values
from selfheal_remediator.healing.runner import Healer
from selfheal_remediator.metrics import Metrics, named, publish
from selfheal_remediator.node.entry import Entry
from selfheal_remediator.node.planner import Planner

METRICS_EVERY = 1.0


class MetricsPublisher:
    """See the module."""

    def __init__(
        self,
        metrics: Metrics,
        planner: Planner,
        authority: Authority,
        draining: Draining,
        healer: Healer,
    ) -> None:
        self._metrics, self._planner, self._authority = metrics, planner, authority
        self._draining, self._healer = draining, healer
        self._due = 0.0
        self._owed = False
        #: What the nodes were counted at: the planner's revision, and whether we were responsible.
        self._counted = (-1, False)

    @property
    def wake(self) -> float | None:
        """When what was too early to be published is due; None = nothing is."""
        return self._due if self._owed else None

    def publish(self, now: float, limited_by: Mapping[str, int]) -> None:
        """limited_by: how many nodes each limit holds up."""
        self._owed = now < self._due
        if self._owed:
            return
        self._due = now + METRICS_EVERY
        # Counting all nodes again is most of what an idle process does: only after a change.
        known = (self._planner.revision, self._authority.responsible)
        if known != self._counted:
            self._counted = known
            self._publish_nodes()
        self._publish_policies()
        publish(
            self._metrics.nodes.limited, {(limit,): count for limit, count in limited_by.items()}
        )
        self._publish_drains(now)

    def _publish_nodes(self) -> None:
        states: Counter[tuple[str, ...]] = Counter()
        cordoned: Counter[tuple[str, ...]] = Counter()
        info: dict[tuple[str, ...], float] = {}
        rejected: Counter[tuple[str, ...]] = Counter()
        if self._authority.responsible:
            for entry in self._planner.entries.values():
                _count(entry, states, cordoned, info, rejected)
        publish(self._metrics.nodes.states, states)
        publish(self._metrics.nodes.cordoned, cordoned)
        publish(self._metrics.nodes.cordoned_info, named(info))
        publish(self._metrics.nodes.rejected, rejected)

    def _publish_policies(self) -> None:
        policy_states = tuple(self._healer.healing.policy_states.values())
        # Who does not act knows none; who does knows all once they are listed.
        complete = not self._authority.responsible or self._healer.listed
        keys = (policy_state.policy.key for policy_state in policy_states)
        self._metrics.healing.set_policies(keys, complete=complete)
        values = policy_values(policy_states)
        publish(self._metrics.healing.pods, values.pods)
        publish(self._metrics.healing.states, values.states)
        publish(self._metrics.healing.rollouts_stuck, values.stuck)

    def _publish_drains(self, now: float) -> None:
        causes = self._draining.blocked_causes(now)
        publish(self._metrics.drains.blocked, {(cause,): count for cause, count in causes.items()})
        drains = [run.drain for run in self._draining.running.values() if not run.drain.after]
        self._metrics.drains.running.set(len(drains))
        oldest = min((max(drain.started, drain.waited_at) for drain in drains), default=now)
        self._metrics.drains.oldest.set(max(0.0, now - oldest))


def _count(
    entry: Entry,
    states: Counter[tuple[str, ...]],
    cordoned: Counter[tuple[str, ...]],
    info: dict[tuple[str, ...], float],
    rejected: Counter[tuple[str, ...]],
) -> None:
    seen = entry.assessment
    states[(seen.standing,)] += 1
    if seen.rejected:
        rejected[(seen.rejected,)] += 1
    state = entry.state
    if state is not None and state.phase.cordoned:
        cordoned[(state.phase.value,)] += 1
        info[(entry.node.name, state.condition, state.phase.value)] = state.first_seen
