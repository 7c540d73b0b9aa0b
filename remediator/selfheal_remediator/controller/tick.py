"""One turn of the main loop: decide over all nodes and drains, and begin what is called for.

Runs on the main thread, after the jobs of the inbox.
"""

from __future__ import annotations

from collections.abc import Callable

from selfheal_remediator.controller.leadership import Leadership
from selfheal_remediator.controller.parts import Parts
from selfheal_remediator.controller.status_publisher import StatusPublisher
from selfheal_remediator.kube.election import Leader

#: The longest sleep of the loop; it ticks at least so often, which /healthz checks.
LONGEST_SLEEP = 10.0
#: A watch that is to end may only just begin: it is ended again after so many seconds.
END_WATCH_AGAIN = 0.05


class Tick:
    """See the module. `parts.nodes.silent` says why this process could not do a leader's work."""

    def __init__(
        self,
        parts: Parts,
        leadership: Leadership,
        leader: Leader,
        status: StatusPublisher,
        clock: Callable[[], float],
    ) -> None:
        self._parts, self._leadership, self._leader, self._clock = parts, leadership, leader, clock
        self._status = status

    def run(self) -> float:
        """Returns when the next one is due at the latest."""
        parts, now = self._parts, self._clock()
        longest = min(now + LONGEST_SLEEP, self._leadership.follow_mode(now))
        leading, silent = parts.authority.leading, parts.nodes.silent()
        if leading and silent:
            self._leader.give_up(silent)  # another replica may hear the nodes
        if leading and parts.nodes.informer.end_stale_watch():
            return now + END_WATCH_AGAIN
        if not (leading and parts.nodes.synced):
            return self._rest(now, longest)
        parts.peer_check.advance(now)
        if not parts.authority.may_act(now):
            return self._rest(now, min(longest, parts.peer_check.due))
        return min(longest, self._act(now))

    def _rest(self, now: float, wake: float) -> float:
        """Nothing is done now, perhaps for months: which nodes changed is not kept, as some of them
        are gone. Who acts again follows all nodes at first."""
        self._parts.planner.take_changed()
        self._parts.drains.follow_all()
        self._parts.publisher.publish(now, {})
        self._status.publish(now, {})
        return min(wake, self._status.wake)

    def _act(self, now: float) -> float:
        """A leader's work."""
        parts = self._parts
        paused, unhealthy = parts.authority.paused, self._unhealthy()
        parts.authority.unhealthy = unhealthy
        parts.drains.update_slots(now)
        plan = parts.planner.plan(now, paused=paused, unhealthy=unhealthy)
        draining = parts.drains.draining
        draining.follow_slots(parts.planner.slots.yielded, now)
        for action in plan.actions:
            parts.writer.submit(action)
        changed = parts.drains.follow(now)
        parts.repairs.follow(changed, now)
        parts.drain_status.follow(changed, now)
        parts.writer.read_again(now)
        wakes = [plan.wake, parts.writer.wake, parts.drains.wake, parts.drain_status.wake]
        stopped = bool(paused or unhealthy)
        if not stopped:
            parts.drains.check_rooms()
        wakes.append(draining.advance(now, stopped=stopped))
        wakes.append(parts.repairs.advance(now, stopped=stopped))
        wakes.append(parts.pods.advance(now, unhealthy))
        wakes.append(parts.restoring.advance(now, stopped=bool(paused or unhealthy)))
        parts.metrics.controller.note_plan()
        parts.publisher.publish(now, plan.limited_by)
        self._status.publish(now, plan.limited_by)
        wakes += [parts.publisher.wake, self._status.wake]
        return min((at for at in wakes if at is not None), default=float("inf"))

    def _unhealthy(self) -> str:
        """Why nothing new is begun now, beside a pause; empty = it may be."""
        silent = self._parts.nodes.silent()
        if not silent and self._parts.api.budget.closed_for > 1:
            return "the API server throttles requests"
        return silent
