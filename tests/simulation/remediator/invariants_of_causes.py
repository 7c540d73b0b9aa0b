"""What must hold given what the remediator has heard: of the API server, people and nodes."""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from selfheal_remediator.kube.lease import PAUSE_KEY
from selfheal_remediator.node.annotation import Phase
from tests.simulation.cluster import conditions
from tests.simulation.cluster.messages import Answer, Json, Request, Response
from tests.simulation.remediator.ladders import CHECKS, DOES
from tests.simulation.remediator.process import NAMESPACE
from tests.simulation.remediator.scenes import CONTROLLER
from tests.simulation.remediator.states import control_plane, cordoned, state_of
from tests.simulation.remediator.world import World

#: A process that read this often (in a row) that it is paused has heard it.
HEARD = 2
#: What was on its way may still arrive (seconds).
ON_ITS_WAY = 3.0
#: Lists of one kind that are answered 410 within ten seconds, at most.
MOST_EXPIRED = 15
#: Most nodes: a larger share than any rule of the product needs; and how long (seconds) until it
#: must have heard of it, by a watch that is late.
MOST, MOST_MINIMUM, MOST_HEARD = 0.6, 3, 90.0


@dataclass(slots=True)
class Causes:
    """fail(invariant, what): something does not hold."""

    world: World
    fail: Callable[[str, str], None]
    #: How often, in a row, each life of a process has read that it is paused, and when at last.
    paused: Counter[str] = field(default_factory=Counter)
    paused_at: dict[str, float] = field(default_factory=dict)
    #: When lists were answered 410, by process and path.
    expired: dict[tuple[str, str], deque[float]] = field(
        default_factory=lambda: defaultdict(lambda: deque(maxlen=MOST_EXPIRED))
    )
    #: Who uncordoned each node (uid) last.
    uncordoned_by: dict[str, str] = field(default_factory=dict)
    #: Since when most nodes do not answer.
    silent_since: float | None = None

    # -- answers ----------------------------------------------------------------------------

    def answered(self, request: Request, answer: Answer) -> None:
        """A request of the remediator was answered."""
        if not isinstance(answer, Response):
            return
        lease = f"/namespaces/{NAMESPACE}/leases/{self.world.config.lease.name}"
        if request.path.endswith(lease) and answer.status == 200:
            self._lease(request.process, answer)
        if request.method == "GET" and answer.status == 410:
            self._list_expired(request)

    def _life(self, process: str) -> str:
        starts = next((one.starts for one in self.world.replicas if one.name == process), 0)
        return f"{process}/{starts}"

    def _lease(self, process: str, answer: Response) -> None:
        life, raw = self._life(process), json.loads(answer.body)
        if (raw["metadata"].get("annotations") or {}).get(PAUSE_KEY):
            self.paused[life] += 1
            if self.paused[life] == HEARD:
                self.paused_at[life] = self.world.simulation.now
        else:
            del self.paused[life]
            self.paused_at.pop(life, None)

    def _list_expired(self, request: Request) -> None:
        """docs/traps.md: nothing is tried again in a loop."""
        now, times = self.world.simulation.now, self.expired[request.process, request.path]
        if len(times) == MOST_EXPIRED and now - times[0] < 10.0:
            what = f"{request.process} lists {request.path} again and again, which has expired"
            self.fail("expired_lists_wait", what)
        times.append(now)

    def sent(self, request: Request) -> None:
        """README: `pause` stops everything but uncordoning: at once for who knows of it."""
        at = self.paused_at.get(self._life(request.process))
        if at is None or not _begins(request):
            return
        ago = self.world.simulation.now - at
        if ago > ON_ITS_WAY:
            what = f"{request.process} sends {request.method} {request.path}"
            self.fail("paused_at_once", f"{what}, {ago:.0f} s after it read that it is paused")

    def resumed(self) -> None:
        """The pause is over, or etcd went back to before it."""
        self.paused.clear()
        self.paused_at.clear()

    # -- nodes ------------------------------------------------------------------------------

    def node(self, old: Json | None, new: Json | None, by: str, *, ours: bool) -> None:
        """A node was changed."""
        self._count_silent()
        if old is None or new is None:
            return
        uid = new["metadata"]["uid"]
        if cordoned(old) and not cordoned(new):
            self.uncordoned_by[uid] = by
        if not ours:
            return
        before, after = state_of(old), state_of(new)
        cancels = after is not None and after.phase is Phase.CANCELLED
        if after is not None and cancels and before is not None and before.phase is not after.phase:
            flaps = self.world.config.recovery.max_flaps
            if self.uncordoned_by.get(uid) == CONTROLLER and len(after.cordons) < flaps:
                # features: "The uncordon of a controller (server-side apply) does not" cancel.
                name = new["metadata"]["name"]
                self.fail("controllers_cancel_nothing", f"{by}: {name} counts as cancelled")
        if cordoned(new) and not cordoned(old):
            self._check_silent(by, new["metadata"]["name"])

    def _count_silent(self) -> None:
        nodes = [n for n in self.world.cluster.store.all("nodes") if not control_plane(n)]
        lost = sum(1 for node in nodes if conditions.status_of(node, "Ready") == "Unknown")
        if lost < MOST_MINIMUM or lost < MOST * len(nodes):
            self.silent_since = None
        elif self.silent_since is None:
            self.silent_since = self.world.simulation.now

    def _check_silent(self, by: str, node: str) -> None:
        """docs/traps.md: "Nothing is started while most nodes [...] are silent"."""
        since = self.silent_since
        if since is not None and self.world.simulation.now - since > MOST_HEARD:
            self.fail("no_cordon_while_most_are_silent", f"{by} cordons {node}")


def _begins(request: Request) -> bool:
    """Whether it cordons a node, evicts or deletes a pod, or makes the Job of a step."""
    body = request.body or b""
    if request.query.get("dryRun") or b'"dryRun"' in body:
        return False
    if "/pods/" in request.path:
        return request.method in ("POST", "DELETE")
    if request.path.endswith("/jobs"):
        # features: a pause stops all but uncordoning, of which a verification is a part.
        template = json.loads(body)["spec"]["template"] if request.method == "POST" else {}
        return bool(template) and template["metadata"]["labels"].get(DOES) != CHECKS
    return cordons(request)


def cordons(request: Request) -> bool:
    """Whether it cordons a node."""
    body = request.body or b""
    sets = b"/spec/unschedulable" in body and b'"remove"' not in body
    return request.method == "PATCH" and "/nodes/" in request.path and sets
