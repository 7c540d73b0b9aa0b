"""What must hold of maintenance windows; see `invariants`. Quotations are of docs/features.md.

A window is open or not by the clock of who acts (controller/inbox.py: the wall clock as it was when
the process began), and when it sends its request.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from selfheal_remediator.config import Group
from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State, parse_state
from selfheal_remediator.windows import window_open
from tests.simulation.cluster.messages import Json, Request
from tests.simulation.cluster.resources import place_of
from tests.simulation.remediator.invariants import Watcher
from tests.simulation.remediator.states import cordoned, state_of
from tests.simulation.remediator.world import World

#: What was decided while it was open is sent within so long (seconds), by a leader that stands
#: still for less than its Lease lasts.
ON_ITS_WAY = 20.0
#: A drain that is to end may have evictions under way for so long (seconds).
ENDS = 40.0
_STATE_PATH = "/metadata/annotations/" + STATE_KEY.replace("/", "~1")


@dataclass(slots=True)
class Windows:
    """See the module."""

    world: World
    watcher: Watcher

    def sent(self, request: Request) -> None:
        """A process sends a request."""
        if not self.world.config.groups or request.process not in self.watcher.replicas:
            return
        if request.query.get("dryRun") or self.world.simulation.now < self.watcher.doubtful_until:
            return
        place = place_of(request.path)
        if place is None:
            return
        if place.resource.plural == "nodes" and request.method == "PATCH" and not place.subresource:
            self._node(request, place.name)
        elif place.subresource == "eviction" and b"dryRun" not in (request.body or b""):
            self._eviction(request, place.namespace, place.name)

    def _node(self, request: Request, name: str) -> None:
        """ "Outside of a group's `maintenanceWindows` no drain of its nodes begins." """
        raw, state = self.world.cluster.store.get("nodes", "", name), _written(request)
        group = self._closed(request, raw, ON_ITS_WAY)
        if raw is None or state is None or group is None:
            return
        before = state_of(raw)
        phase, steps = (None, 0) if before is None else (before.phase, before.steps)
        if state.phase is Phase.DRAINING and phase is not Phase.DRAINING:
            self._fail(request, f"begins the drain of {name}")
        if state.phase is Phase.REPAIRING and (phase is not state.phase or steps != state.steps):
            # "Between two steps others get it [...] while no maintenance window [...] is open."
            self._fail(request, f"begins step {state.steps} of {name}")
        if state.phase.cordoned and not cordoned(raw) and group.outside_windows.cordon == "wait":
            # "They are cordoned all the same, unless `outsideWindows.cordon` is `wait`."
            self._fail(request, f"cordons {name}")

    def _eviction(self, request: Request, namespace: str, name: str) -> None:
        """ "with `startedDrain: pause`" a drain under way "ends and begins again in the next
        window"."""
        pod = self.world.cluster.store.get("pods", namespace, name)
        node = "" if pod is None else str(pod["spec"].get("nodeName") or "")
        raw = self.world.cluster.store.get("nodes", "", node)
        state = None if raw is None else state_of(raw)
        group = self._closed(request, raw, ENDS)
        pauses = group is not None and group.outside_windows.started_drain == "pause"
        if pauses and state is not None and state.phase is Phase.DRAINING:
            self._fail(request, f"evicts {name} from {node}")

    def _closed(self, request: Request, raw: Json | None, seconds: float) -> Group | None:
        """The group of the node, if all its windows have been closed for so long."""
        if raw is None:
            return None
        group = self.world.config.group_of(node_from_json(raw).labels)
        daemon = next(one.remediator for one in self.world.replicas if one.name == request.process)
        if group is None or daemon is None:
            return None
        now = daemon.clock()
        moments = now, now - seconds / 2, now - seconds
        is_open = any(window_open(group.maintenance_windows, at).open for at in moments)
        return None if is_open else group

    def _fail(self, request: Request, what: str) -> None:
        self.watcher.fail("windows_are_kept", f"{request.process} {what} outside of its windows")


def _written(request: Request) -> State | None:
    """The annotation that a change of a node writes, None = it writes none."""
    operations = json.loads(request.body or b"[]")
    found = [one for one in operations if one.get("path") == _STATE_PATH and "value" in one]
    return parse_state(found[-1]["value"]) if found else None
