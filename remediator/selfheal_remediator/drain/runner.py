"""The drains under way: each begins and ends here, and takes its turn in the main loop.

All methods run on the main thread. Decisions: engine.py (NodeDrain). One turn of one drain:
turn.py. What runs in other threads: pod_watch.py, budget_watch.py, and requests.py for workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from selfheal_remediator.config import Config
from selfheal_remediator.drain import reports
from selfheal_remediator.drain.budget_watch import BudgetWatch
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.pod_watch import PodNews, PodWatch
from selfheal_remediator.drain.preflight import Departure, Preflight
from selfheal_remediator.drain.requests import Requests
from selfheal_remediator.drain.running import Callbacks, Instructions, RunningDrain
from selfheal_remediator.drain.surge import cordon_mark
from selfheal_remediator.drain.surge_requests import SurgeRequests
from selfheal_remediator.drain.turn import Turn
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.informer import Informer
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.moments import earliest
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.work_clock import WorkClock, first_eviction, time_left
from selfheal_remediator.threads.pool import Post, Workers
from selfheal_remediator.threads.runtime import REAL, Runtime


class Draining:
    """The drains under way, by their nodes' uids."""

    def __init__(
        self,
        api: KubernetesApi,
        config: Config,
        workers: Workers,
        post: Post,
        own_uid: str,
        callbacks: Callbacks,
        clock: Callable[[], float],
        *,
        runtime: Runtime = REAL,
    ) -> None:
        self._api, self._post, self._callbacks, self._clock = api, post, callbacks, clock
        self.running: dict[str, RunningDrain] = {}
        self._watches: dict[str, Informer[Pod]] = {}
        #: Grows with every drain that begins or ends.
        self.revision = 0
        self._instructions = Instructions(config)
        #: The configuration of the last turn.
        self._used_config = config
        self.preflight = Preflight(api, self._instructions, own_uid, clock, runtime=runtime)
        self.budgets = BudgetWatch(api, post, self.running, clock, runtime=runtime)
        requests = Requests(api, self._instructions, workers, post, callbacks, self.budgets, clock)
        surges = SurgeRequests(api, self._instructions, workers, post, callbacks, clock)
        self._turn = Turn(self._instructions, requests, surges, callbacks, clock)

    @property
    def config(self) -> Config:
        """The configuration that drains go by."""
        return self._instructions.config

    @config.setter
    def config(self, config: Config) -> None:
        self._instructions.config = config

    # -- beginning and ending -----------------------------------------------------------

    def follows(self, uid: str, phase: Phase) -> bool:
        """Whether the node's drain does already what this phase asks for.

        One that was drained, and is watched, may have to be drained again: etcd was restored.
        """
        run = self.running.get(uid)
        return run is not None and not (run.drain.after and phase is Phase.DRAINING)

    def begin(self, node: str, uid: str, state: State, *, fresh: bool) -> None:
        """Drain the node; `fresh` = its state was read (or written) in this moment.

        One that is drained already is watched: what is put on it again is evicted.
        """
        if self.follows(uid, state.phase):
            return
        self.end(uid)
        now, limit, used = self._clock(), self.config.drain.deadline, float(state.drain_used)
        since = now - state.drain_started  # by two clocks, when another process wrote it
        drained = state.phase is Phase.DRAINED
        # Only before the first eviction: what was begun is ended, by whichever process. Its pods
        # have taken room since, and a node that is half empty helps nobody.
        check = self.config.drain.headroom and not used and not drained
        stop, nodes = self.preflight.runtime.event(), tuple(self._callbacks.nodes())
        departure = Departure(node, uid, nodes, check, stop)
        drain = NodeDrain(
            node=node,
            uid=uid,
            started=now if fresh or since < 0 or not state.drain_started else now - since,
            deadline=now + time_left(limit, used),
            around=self.preflight.initial(departure),
        )
        began = None if fresh else float(state.drain_started)
        drain.returns.restore(state.returns, state.returned, began)
        if self.config.dry_run:
            drain.returns.saved = None
        drain.not_before = first_eviction(state.since, self.config.drain.delay, now)
        if drained:
            drain.watch_on()
        elif fresh and not drain.delayed(now):
            drain.begin_wave(0)
        run = RunningDrain(drain, WorkClock(limit, used), stop)
        run.mark = cordon_mark(uid, state.since)
        run.unrecorded = check and not self.config.dry_run  # in dry-run nothing is written
        self._watch(run, departure)

    def _watch(self, run: RunningDrain, departure: Departure) -> None:
        """Begin to watch its pods."""
        drain = run.drain
        self.budgets.begin(run)
        self.running[drain.uid] = run
        self.revision += 1
        news = PodNews(run, self.preflight, self._callbacks)
        pods = self._api.pods_of(drain.node)
        watch = PodWatch(
            pods,
            departure,
            drain,
            self.preflight,
            news,
            self._post,
            runtime=self.preflight.runtime,
        )
        self._watches[drain.uid] = watch.informer
        watch.informer.start()

    def node_seen(self, node: Node) -> None:
        """The node as it is: only while its kubelet answers do its pods complete."""
        run, now = self.running.get(node.uid), self._clock()
        if run is not None and run.drain.node_ready(not run.readiness.lost(node, now), now):
            run.news = True

    def watch_on(self, uid: str) -> None:
        """The node was drained: keep watching for pods that return."""
        run = self.running.get(uid)
        if run is not None and not run.drain.after:
            run.drain.watch_on()
            run.unrecorded = False
            self.preflight.rooms.release(uid)
        self.reopen(uid)

    def returns_saved(self, uid: str, state: State) -> None:
        """The node's annotation says this from now on."""
        run = self.running.get(uid)
        if run is not None and run.drain.returns.saved is not None:
            run.drain.returns.saved = (state.returns, state.returned)
            run.news = True

    def reopen(self, uid: str) -> None:
        """It has not ended after all."""
        run = self.running.get(uid)
        if run is not None:
            run.ended, run.news = False, True

    def end(self, uid: str) -> None:
        """Stop at once: done, cancelled, or not ours any more."""
        run = self.running.pop(uid, None)
        if run is None:
            return
        self.revision += 1
        run.stop.set()
        self.preflight.rooms.release(uid)
        watch = self._watches.pop(uid, None)
        if watch is not None:
            watch.end_watch()

    def end_all(self) -> None:
        """Stop every drain; requests that were sent continue in the API server."""
        for uid in list(self.running):
            self.end(uid)
        self.budgets.end()
        self.preflight.forget()

    def cancel_ordered(self) -> None:
        """What was ordered and not sent yet is decided again."""
        self._instructions.cancelled += 1

    # -- pauses and deadlines -----------------------------------------------------------

    def pause(self, uid: str, why: str) -> None:
        """Begin nothing more: the node recovers, as `why` says."""
        run = self.running.get(uid)
        if run is None or run.paused_since is not None:
            return
        run.pause(self._clock(), stopped=self._instructions.stopped)
        if run.drain.evictions and not run.drain.after:
            self._callbacks.report(run.drain, reports.recovering(why))

    def resume(self, uid: str) -> int:
        """After a pause; returns the seconds that it lasted, 0 = there was none.

        Its deadline has waited too: pods are deleted after time in which they could have gone.
        """
        run = self.running.get(uid)
        return 0 if run is None else run.resume(self._clock(), stopped=self._instructions.stopped)

    def used(self, uid: str) -> int:
        """Seconds of its deadline that the drain has used."""
        run = self.running.get(uid)
        return 0 if run is None else run.used(self._clock())

    def to_note(self, now: float) -> dict[str, int]:
        """The drains (nodes' uids) whose used seconds are to be written down now."""
        stopped = self._instructions.stopped
        found = {uid: run.to_note(now, stopped=stopped) for uid, run in self.running.items()}
        return {uid: used for uid, used in found.items() if used is not None}

    def noted(self, uid: str, used: int) -> None:
        """So many used seconds are written down, or about to be."""
        run = self.running.get(uid)
        if run is not None:
            run.clock.noted = used

    def deadlines(self, now: float) -> dict[str, float]:
        """When each drain's deadline is, by our clock."""
        return {
            uid: run.drain.deadline + run.clock.owed(now)
            for uid, run in self.running.items()
            if not run.drain.after
        }

    # -- the main loop's turn -----------------------------------------------------------

    def advance(self, now: float, *, stopped: bool) -> float | None:
        """Do what is to be done now; returns when to be called again at the latest."""
        wake: float | None = None
        everything = stopped is not self._instructions.stopped
        everything = everything or self.config is not self._used_config
        self._used_config, self._instructions.stopped = self.config, stopped
        for uid, run in list(self.running.items()):
            run.credit(now, stopped=stopped)
            if run.ended:
                continue
            if everything or run.news or now >= run.due:
                self._turn.take(run, self._watches.get(uid), now)
            if not run.ended:
                wake = earliest(wake, run.due)
        self.budgets.end_unused(now)
        self.preflight.rooms.forget_old()
        return wake

    # -- slots (see node/drain_slots.py) -------------------------------------------------

    @property
    def standing(self) -> dict[str, float]:
        """The drains (nodes' uids) that make no progress, since when."""
        return {
            uid: run.standing_since
            for uid, run in self.running.items()
            if run.standing_since is not None and not run.ended
        }

    def ready(self, now: float) -> frozenset[str]:
        """The drains without a slot that are to get one again."""
        return frozenset(
            uid
            for uid, run in self.running.items()
            if run.requests_at is not None and run.requests_at <= now and run.paused_since is None
        )

    def follow_slots(self, yielded: Mapping[str, float], now: float) -> None:
        """These drains (nodes' uids) have yielded their slots, the others have one."""
        for uid, run in self.running.items():
            standstill, drain = run.drain.standstill, run.drain
            if uid in yielded and standstill.yielded_at is None:
                self._callbacks.report(drain, reports.slot_yielded(drain, now))
                standstill.yield_slot(now)
            elif uid not in yielded and standstill.yielded_at is not None:
                standstill.regain_slot(now)
                if now < drain.deadline and not drain.after:
                    self._callbacks.report(drain, reports.slot_regained())
            else:
                continue
            run.news, run.standing_since, run.requests_at = True, None, None

    def blocked_causes(self, now: float) -> Counter[str]:
        """Pods that drains wait for, by cause."""
        counts: Counter[str] = Counter()
        for run in self.running.values():
            if run.paused_since is None:
                counts.update(run.drain.causes(now))
        return counts
