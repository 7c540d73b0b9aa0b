"""Has drains follow the nodes' annotations, and what drains come to written down there.

All methods run on the main thread. The drains themselves are carried out by drain/runner.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from selfheal_remediator.controller.mode import Mode
from selfheal_remediator.controller.node_writer import NodeWriter
from selfheal_remediator.controller.reporter import Reporter
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.room_check import RoomCheckRun
from selfheal_remediator.drain.runner import Draining
from selfheal_remediator.drain.running import Callbacks
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.kube.responses import Outcome
from selfheal_remediator.metrics import Metrics
from selfheal_remediator.node import lifecycle
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.entry import Entry
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.node.room_checks import RoomCheck
from selfheal_remediator.threads.pool import Post, Workers

log = logging.getLogger(__name__)


class DrainControl:
    """See the module."""

    def __init__(
        self,
        api: KubernetesApi,
        planner: Planner,
        writer: NodeWriter,
        mode: Mode,
        workers: Workers,
        post: Post,
        pod_uid: str,
        metrics: Metrics,
        reporter: Reporter,
        clock: Callable[[], float],
    ) -> None:
        self._planner, self._writer, self._mode = planner, writer, mode
        self._metrics, self._reporter, self._clock = metrics, reporter, clock
        callbacks = Callbacks(
            done=self.drained,
            no_room=self.no_room,
            nodes=self._all_nodes,
            say=reporter.of_node,
            evicted=self._count_eviction,
            not_ours=writer.take_in,
            returned=self.pods_returned,
            of_object=reporter.of_object,
        )
        self.draining = Draining(
            api, mode.config, workers, post, pod_uid, callbacks, clock, runtime=workers.runtime
        )
        self._room_check = RoomCheckRun(
            api, self.draining.preflight, workers, post, self._room_checked
        )
        planner.rooms.found = {}
        writer.follower = self
        #: The drains' revision at which the annotations of all nodes were followed.
        self._followed = -1
        #: Drains (nodes' uids) that are begun later, as their nodes could not be changed.
        self._put_off: dict[str, float] = {}

    # -- following the annotations ---------------------------------------------------------

    def follow_all(self) -> None:
        """Follow the annotations of all nodes again, not only of those that changed."""
        self._followed = -1

    def update_slots(self, now: float) -> None:
        """Tell the planner's slots how the drains are."""
        slots = self._planner.slots
        slots.standing, slots.ready = self.draining.standing, self.draining.ready(now)
        slots.deadlines = self.draining.deadlines(now)

    def follow(self, now: float) -> set[str]:
        """Begin, end and continue drains as the annotations of the nodes (uids) that changed say;
        returns these."""
        changed = self._planner.take_changed()
        if self.draining.revision != self._followed:
            self._followed = self.draining.revision
            changed.update(self._planner.entries, self.draining.running)
        changed.update(uid for uid, when in self._put_off.items() if when <= now)
        for uid in changed:
            self._follow(uid, now)
        for uid in self.draining.running:
            entry = self._planner.entries.get(uid)
            if entry is not None:
                self.draining.node_seen(entry.node)
        self._note_used(now)
        return changed

    @property
    def wake(self) -> float | None:
        """When drains that were put off are to be begun."""
        return min(self._put_off.values(), default=None)

    def _follow(self, uid: str, now: float) -> None:
        """A drain follows its node's annotation: begun when it is missing, or ended.

        Nodes that are drained are watched on (but not in dry-run, where nothing left them).
        """
        self._put_off.pop(uid, None)
        entry = self._planner.entries.get(uid)
        if entry is None:
            self.draining.end(uid)
            return
        state = entry.assessment.state
        if entry.pending is not None:
            return
        if state is None or not self._is_followed(entry, state):
            self.draining.end(uid)
            return
        if not self.draining.follows(uid, state.phase):
            if entry.retry_at > now:
                # The end of a drain could not be written down: not the same again at once.
                self._put_off[uid] = entry.retry_at
                return
            if state.phase is Phase.DRAINING:
                log.info("continuing the drain of %s", entry.node.name)
            self.draining.begin(entry.node.name, uid, state, fresh=False)
        self._pause_or_resume(entry, state)

    def _is_followed(self, entry: Entry, state: State) -> bool:
        dry_run = self._mode.config.dry_run
        followed = {Phase.DRAINING} if dry_run else {Phase.DRAINING, Phase.DRAINED}
        return state.phase in followed and entry.assessment.standing == state.phase.value

    def _pause_or_resume(self, entry: Entry, state: State) -> None:
        """A drain pauses while its node recovers. Bad again, it has its deadline so much later,
        also for who leads next."""
        node, seen = entry.node, entry.assessment
        if seen.recovering:
            self.draining.pause(node.uid, seen.why)
            return
        rested = self.draining.resume(node.uid)
        if not rested or state.phase is not Phase.DRAINING:
            return
        used = self.draining.used(node.uid)
        after = replace(state, drain_started=state.drain_started + rested, drain_used=used)
        text = f"{state.condition} is bad again: the drain continues"
        action = Action(Kind.NOTE, node.name, node.uid, after, "DrainResumed", text)
        if self._writer.request(action, self._clock()):
            self.draining.noted(node.uid, used)

    def _note_used(self, now: float) -> None:
        """Write down how much of their deadlines drains have used: who leads next goes by it.

        At first before any pod is evicted: until then who leads next checks that they fit
        elsewhere. After it a drain is not given up for lack of room.
        """
        for uid, used in self.draining.to_note(now).items():
            entry = self._planner.entries.get(uid)
            state = entry.state if entry is not None else None
            draining = state is not None and state.phase is Phase.DRAINING
            if entry is None or state is None or not draining or self._mode.config.dry_run:
                continue
            run = self.draining.running[uid]
            if entry.pending is None and run.recorded(state.drain_used):
                continue
            after = replace(state, drain_used=used)
            text = f"{used}s of the drain's deadline are used"
            if run.unrecorded:
                text = "the headroom check passed: its pods may be evicted"
            action = Action(Kind.NOTE, entry.node.name, uid, after, "", text)
            if self._writer.request(action, now):
                self.draining.noted(uid, used)

    # -- what became of changes (see Follower) ----------------------------------------------

    def settled(self, action: Action) -> None:
        """The node's annotation is this from now on."""
        state = action.state
        if state is not None:
            self.draining.returns_saved(action.uid, state)
        if state is not None and state.phase is Phase.DRAINING:
            if action.kind is Kind.CORDON:
                prefix = "dry-run, would be: " if self._mode.config.dry_run else ""
                text = f"{prefix}draining for {state.condition}"
                self._reporter.of_node(action.node, action.uid, "DrainStarted", text, False)
            self.draining.begin(action.node, action.uid, state, fresh=True)
        elif state is not None and state.phase is Phase.DRAINED and not self._mode.config.dry_run:
            self.draining.watch_on(action.uid)
        else:
            self.draining.end(action.uid)

    def not_done(self, action: Action) -> None:
        """A drain whose end could not be written down has not ended."""
        run = self.draining.running.get(action.uid)
        if run is not None and run.drain.synced:
            self.draining.reopen(action.uid)
        elif run is not None:
            self.draining.end(action.uid)

    def node_gone(self, uid: str) -> None:
        """The node was deleted."""
        self.draining.end(uid)

    # -- what drains come to -----------------------------------------------------------------

    def drained(self, drain: NodeDrain) -> None:
        """The node is empty: write it down."""
        now = self._clock()
        state = self._draining_state(drain)
        if state is None:
            self.draining.end(drain.uid)
            return
        seconds = now - drain.started
        text = _result_text(drain, seconds, dry_run=self._mode.config.dry_run)
        done = lifecycle.drained(state, now)
        action = Action(Kind.NOTE, drain.node, drain.uid, done, "DrainSucceeded", text)
        if not self._writer.request(action, now):
            self.draining.reopen(drain.uid)  # busy: asked again in a moment
            return
        self._metrics.drains.durations.labels("succeeded").observe(max(0.0, seconds))

    def pods_returned(self, drain: NodeDrain) -> None:
        """Write down how often pods were put on the node again, before they are evicted again."""
        entry = self._planner.entries.get(drain.uid)
        state = entry.state if entry is not None else None
        if state is None or state.phase not in (Phase.DRAINING, Phase.DRAINED):
            return
        counts, latest = drain.returns.to_save
        after = replace(state, returns=counts, returned=latest)
        text = "pods that returned despite the cordon are counted"
        action = Action(Kind.NOTE, drain.node, drain.uid, after, "", text)
        self._writer.request(action, self._clock())

    def no_room(self, drain: NodeDrain, why: str) -> None:
        """The pods fit nowhere else: the node stays cordoned; the drain is tried again later."""
        now = self._clock()
        state = self._draining_state(drain)
        if state is None:
            self.draining.end(drain.uid)
            return
        self._planner.rooms.checked(drain.uid, RoomCheck(now, fits=False))
        back = lifecycle.not_drained(state, now)
        message = f"cordoned only: {why}"
        action = Action(Kind.NOTE, drain.node, drain.uid, back, "NoHeadroom", message, True)
        if self._writer.request(action, now):
            self._metrics.drains.durations.labels("no-room").observe(max(0.0, now - drain.started))
        else:
            self.draining.end(drain.uid)  # busy: begun again at the next evaluation of the node

    def check_rooms(self) -> None:
        """Check a cordoned node whose pods fitted nowhere else: it is drained only if they fit by
        now, and until then nothing is written or reported again."""
        if self._room_check.under_way:
            return
        while (uid := self._planner.rooms.take()) is not None:
            entry = self._planner.entries.get(uid)
            if entry is not None:
                self._room_check.begin(entry.node, tuple(self._all_nodes()))
                return

    def _room_checked(self, uid: str, fits: bool | None) -> None:
        now, entry = self._clock(), self._planner.entries.get(uid)
        if entry is None:
            return  # it was deleted meanwhile
        self._planner.rooms.checked(uid, RoomCheck(now, fits=bool(fits)))
        self._planner.schedule.put(entry, now)
        if fits is False:
            # As a drain that came to nothing: the alert SelfhealNoHeadroom counts them.
            self._metrics.drains.durations.labels("no-room").observe(0.0)

    def _draining_state(self, drain: NodeDrain) -> State | None:
        """The node's annotation, None = it is not being drained any more."""
        entry = self._planner.entries.get(drain.uid)
        state = entry.state if entry is not None else None
        return state if state is not None and state.phase is Phase.DRAINING else None

    def _all_nodes(self) -> list[Node]:
        return [entry.expected for entry in self._planner.entries.values()]

    def _count_eviction(self, outcome: Outcome) -> None:
        self._metrics.drains.evictions.labels(outcome.value).inc()


def _result_text(drain: NodeDrain, seconds: float, *, dry_run: bool) -> str:
    """What a drain came to, for people."""
    staying = drain.staying
    if dry_run:
        text = f"dry-run: {len(drain.evictions)} pods would be evicted"
    else:
        pods = "1 pod" if drain.evicted == 1 else f"{drain.evicted} pods"
        text = f"empty after {seconds:.0f}s, {pods} went"
        if drain.pods.empty_dirs:
            text += f", {drain.pods.empty_dirs} of them with data in emptyDir volumes"
    if staying:
        names = "; ".join(f"{pod.id}: {why}" for pod, why in staying[:5])
        more = f"; and {len(staying) - 5} more" if len(staying) > 5 else ""
        text += f", {len(staying)} stay: {names}{more}"
    return text
