"""Makes the snapshots of the status page, while it is enabled. Other threads read the last one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from selfheal_remediator.controller.mode import start_text
from selfheal_remediator.controller.parts import Parts
from selfheal_remediator.controller.status_rows import (
    drain_rows,
    event_rows,
    node_rows,
    policy_rows,
    workload_rows,
)
from selfheal_remediator.kube.election import Leader
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.node.limits import budget
from selfheal_remediator.status_page.snapshot import Counts, Role, Snapshot

#: Seconds between two snapshots at least.
SNAPSHOT_EVERY = 3.0


class StatusPublisher:
    """See the module. All but `snapshot` belongs to the main thread."""

    def __init__(self, parts: Parts, leader: Leader, began: float) -> None:
        self._parts, self._leader, self._began = parts, leader, began
        self._due = 0.0
        self._owed = False
        #: The last one; None = the page is off, or nothing is known yet.
        self.snapshot: Snapshot | None = None

    @property
    def wake(self) -> float:
        """When what was too early to be shown is due; infinite = nothing is."""
        return self._due if self._owed else float("inf")

    def publish(self, now: float, limited_by: Mapping[str, int]) -> None:
        """limited_by: how many nodes each limit holds up."""
        if not self._parts.mode.config.status_page.enabled:
            self.snapshot, self._owed, self._due = None, False, 0.0
            return
        self._owed = now < self._due
        if not self._owed:
            self._due = now + SNAPSHOT_EVERY
            self.snapshot = self._made(now, limited_by)

    def _made(self, now: float, limited_by: Mapping[str, int]) -> Snapshot:
        parts, view = self._parts, self._leader.record.view
        leading = parts.authority.leading and parts.nodes.synced
        healer, stopped = parts.pods.healer, self._stopped(now)
        idle = "stopped" if stopped else "dry run" if parts.mode.config.dry_run else ""
        entries = parts.planner.entries
        nodes, states = node_rows(entries.values(), parts.mode.config, leading=leading)
        running = parts.drains.draining.running.values()
        policy_states = tuple(healer.healing.policy_states.values())
        return Snapshot(
            at=now,
            installation=parts.planner.owner,
            process=self._leader.identity,
            role=self._role(),
            leader=view.holder if view is not None else "",
            mode=self._mode(now),
            stopped=stopped,
            events_since=self._began,
            counts=self._counts(states, limited_by, now, leading=leading),
            nodes=nodes,
            drains=drain_rows(running, now, idle),
            policies=policy_rows(policy_states),
            workloads=workload_rows(policy_states),
            events=event_rows(parts.events.recent, now),
            policies_known=leading and parts.mode.config.policies.enabled and healer.listed,
        )

    def _role(self) -> Role:
        authority = self._parts.authority
        if not authority.leading:
            return Role.STANDBY
        if authority.first is None or not self._parts.nodes.synced:
            return Role.STARTING
        return Role.READ_ONLY if authority.first else Role.LEADER

    def _mode(self, now: float) -> str:
        mode = self._parts.mode
        if mode.configured.dry_run:
            return "dryRun: it only reports what it would do"
        until = mode.observes_until(now)
        if until is not None:
            return f"it only reports what it would do until {start_text(until)} (observeFirst)"
        return "enforce"

    def _stopped(self, now: float) -> str:
        authority = self._parts.authority
        if authority.paused:
            return f"paused: {authority.paused}"
        if now < authority.stopped_until:
            return f"it is being uninstalled, until {time_text(authority.stopped_until)}"
        return authority.unhealthy if authority.leading else ""

    def _counts(
        self, states: Counter[str], limited_by: Mapping[str, int], now: float, *, leading: bool
    ) -> Counts:
        planner, limits = self._parts.planner, self._parts.mode.config.limits
        cordoned = allowed = None
        if leading:
            tally = planner.tally(now)
            cordoned = tally.cordoned
            allowed = budget(limits, max(tally.population, tally.peak))
        return Counts(
            nodes=len(planner.entries),
            cordoned=cordoned,
            allowed=allowed,
            states=tuple(states.most_common()),
            limited=tuple(sorted(limited_by.items())),
        )
