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
from selfheal_remediator.kube.events import MOST_RECENT
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.node.limits import budget
from selfheal_remediator.status_page.snapshot import Counts, Role, Snapshot
from selfheal_remediator.threads import supervision

#: Seconds between two snapshots at least, and after one that could not be made.
SNAPSHOT_EVERY, AFTER_FAILURE = 3.0, 60.0


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
        if not (self._parts.mode.config.status_page.enabled and self._parts.nodes.known_once):
            self.snapshot, self._owed, self._due = None, False, 0.0
            return
        self._owed = now < self._due
        if self._owed:
            return
        self._due = now + SNAPSHOT_EVERY
        try:
            self.snapshot = self._made(now, limited_by)
        except Exception as error:  # noqa: BLE001
            # Whatever is wrong with the page, the remediator must continue.
            self.snapshot, self._due = None, now + AFTER_FAILURE
            then = f"there is no status page for {AFTER_FAILURE:.0f}s"
            supervision.failed("main", error, then, runtime=self._parts.api.runtime)

    def _made(self, now: float, limited_by: Mapping[str, int]) -> Snapshot:
        parts, view, role = self._parts, self._leader.record.view, self._role(now)
        # Who does nothing assesses no node, and knows what is written on them.
        acts = role is Role.LEADER
        healer, stopped = parts.pods.healer, self._stopped(now, acts=acts)
        idle = "stopped" if stopped else "dry run" if parts.mode.config.dry_run else ""
        entries, unread = parts.planner.entries, parts.nodes.informer.left_out
        nodes, states = node_rows(entries.values(), parts.mode.config, acts=acts)
        if unread:
            states["cannot be read"] = unread
        running = parts.drains.draining.running.values()
        policy_states = tuple(healer.healing.policy_states.values()) if acts else ()
        recent = parts.events.recent
        return Snapshot(
            at=now,
            installation=parts.planner.owner,
            process=self._leader.identity,
            role=role,
            leader=view.holder if view is not None else "",
            dry_run=self._dry_run(now),
            stopped=stopped,
            events_since=recent[0].at if len(recent) >= MOST_RECENT else self._began,
            counts=self._counts(states, limited_by, now, acts=acts),
            nodes=nodes,
            drains=drain_rows(running, now, idle),
            policies=policy_rows(policy_states),
            workloads=workload_rows(policy_states),
            events=event_rows(recent, now),
            policies_known=acts and parts.mode.config.policies.enabled and healer.listed,
        )

    def _role(self, now: float) -> Role:
        authority = self._parts.authority
        if not authority.leading:
            return Role.STANDBY
        if authority.first is None or not self._parts.nodes.synced:
            return Role.STARTING
        return Role.LEADER if authority.may_act(now) else Role.READ_ONLY

    def _dry_run(self, now: float) -> str:
        mode = self._parts.mode
        if mode.configured.dry_run:
            return "remediator.config.mode is dryRun"
        until = mode.observes_until(now)
        return "" if until is None else f"observeFirst, until {start_text(until)}"

    def _stopped(self, now: float, *, acts: bool) -> str:
        authority = self._parts.authority
        reasons = (
            f"paused: {authority.paused}" if authority.paused else "",
            f"it is being uninstalled, until {time_text(authority.stopped_until)}"
            if now < authority.stopped_until
            else "",
            f"the remediator {authority.first} comes first" if authority.first else "",
            authority.unhealthy if acts else self._parts.nodes.silent(),
        )
        return "; ".join(filter(None, reasons))

    def _counts(
        self, states: Counter[str], limited_by: Mapping[str, int], now: float, *, acts: bool
    ) -> Counts:
        planner, limits = self._parts.planner, self._parts.mode.config.limits
        cordoned = allowed = None
        if acts:
            tally = planner.tally(now)
            cordoned = tally.cordoned
            allowed = budget(limits, max(tally.population, tally.peak))
        return Counts(
            nodes=states.total(),
            cordoned=cordoned,
            allowed=allowed,
            states=tuple(states.most_common()),
            limited=tuple(sorted(limited_by.items())),
        )
