"""Carries out drains: one watch of pods per draining node, one of all budgets while needed.

All methods run on the main loop's thread; the threads started here only read from the API and
pass their observations to `post`. NodeDrain decides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from selfheal_remediator.config import Config
from selfheal_remediator.drain.claims import all_daemon_sets, answer_of, read_claims
from selfheal_remediator.drain.engine import Blocker, NodeDrain, Orders, fallback
from selfheal_remediator.drain.filters import Fate, Surroundings, of_daemon_set, sort_pod
from selfheal_remediator.drain.free_capacity import Move, Rooms
from selfheal_remediator.drain.lookups import Answer, Question
from selfheal_remediator.drain.node_pods import node_pod_from_json
from selfheal_remediator.drain.returns import CLOCK_TOLERANCE
from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.kube.client import Collection, KubernetesApi
from selfheal_remediator.kube.informer import Change, Reflector, WatchEvent
from selfheal_remediator.kube.objects import (
    Budget,
    Json,
    Node,
    Pod,
    budget_from_json,
    node_from_json,
)
from selfheal_remediator.kube.responses import EvictionResult, Outcome, classify_eviction
from selfheal_remediator.node.annotation import Phase, State, Unreadable, read_state
from selfheal_remediator.node.drain_clock import DrainClock, time_left
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Post, Purpose, Workers

log = logging.getLogger(__name__)

DaemonSets = frozenset[tuple[str, str, str]]
DAEMON_SETS_KEPT = 60.0
BUDGETS_KEPT = 60.0
BLOCKED_EVERY = 60.0
BLOCKED_FIRST = 1.0
#: A drain that was written down so recently has evicted nothing yet.
JUST_BEGUN = 2.0
#: A drain without news is still evaluated this often, as a fallback.
LOOK_AGAIN = 10.0
#: What could not be written down because the node is being changed is tried again.
BUSY_AGAIN = 0.05
#: Whether a node is empty is read from the server itself; the answer is checked this often.
CONFIRM_AGAIN = 1.0


@dataclass(slots=True)
class Running:
    """One drain with its watch."""

    drain: NodeDrain
    pods: Collection
    #: All nodes, and whether it is to be checked that the pods fit on the others.
    nodes: list[Node] = field(default_factory=list)
    checked: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    #: How much of the deadline is used.
    clock: DrainClock = field(default_factory=lambda: DrainClock(float("inf")))
    #: The watch of its pods; whether a list of them was read that is not from a cache, which may
    #: lag: before that the node does not count as empty.
    watch: Reflector[Pod] | None = None
    confirming: bool = False
    confirmed: bool = False
    checking: bool = False
    #: The node is not read again sooner; how often in a row it was read in vain.
    check_at: float = 0.0
    checked_in_vain: int = 0
    ended: bool = False
    #: Since when its node recovers, so that nothing more is to leave it; None = it does not.
    paused_since: float | None = None
    tried: set[str] = field(default_factory=set)
    blocked_since: float | None = None
    reported_at: float = float("-inf")
    returned_reported_at: float = float("-inf")
    left_reported: frozenset[str] = frozenset()
    #: Since when it makes no progress, and when it requests a slot again (see drain_slots.py).
    standing_since: float | None = None
    asks_at: float | None = None
    #: Whether it has news since the last evaluation; otherwise it is evaluated when due.
    news: bool = True
    due: float = 0.0

    @property
    def others(self) -> list[Node]:
        """All nodes but the one that is drained."""
        return [node for node in self.nodes if node.uid != self.drain.uid]


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the loop wants to know. `say` takes (node, uid, reason, message, warning); `not_ours`
    the node as just read, which is not to be drained any more."""

    done: Callable[[NodeDrain], None]
    no_room: Callable[[NodeDrain, str], None]
    nodes: Callable[[], list[Node]]
    say: Callable[[str, str, str, str, bool], None]
    evicted: Callable[[Outcome], None]
    not_ours: Callable[[Node], None]
    #: Pods came back past the cordon: their counts are to be written down.
    returned: Callable[[NodeDrain], None]


class Draining:
    """The drains under way."""

    def __init__(
        self,
        api: KubernetesApi,
        config: Config,
        workers: Workers,
        post: Post,
        own_uid: str,
        callbacks: Callbacks,
        clock: Callable[[], float],
    ) -> None:
        self._api, self.config, self._workers, self._post = api, config, workers, post
        self._own_uid, self._callbacks, self._clock = own_uid, callbacks, clock
        self.running: dict[str, Running] = {}
        #: Grows with every drain that begins or ends.
        self.revision = 0
        #: Inputs of the last evaluation of the drains; workers also read whether all is stopped:
        #: what waits for its turn is not sent any more then.
        self._looked_with, self._stopped = config, False
        self._daemon_sets: tuple[float, DaemonSets] | None = None
        self._daemon_lock = threading.Lock()
        self._rooms = Rooms(api)
        self._budgets: dict[str, Budget] = {}
        self._budget_stop: threading.Event | None = None
        self._budget_source: Collection | None = None
        self._budgets_unused_since: float | None = None

    # -- beginning and ending -----------------------------------------------------------

    def begin(self, node: str, uid: str, state: State, *, fresh: bool) -> None:
        """Drain the node; `fresh` = its state was read (or written) in this moment.

        One that is drained already is watched: what is put on it again is evicted.
        """
        if uid in self.running:
            return
        now, limit = self._clock(), self.config.drain.deadline
        used = float(state.drain_used)
        since = now - state.drain_started  # by two clocks, when another process wrote it
        drain = NodeDrain(
            node=node,
            uid=uid,
            started=now if fresh or since < 0 or not state.drain_started else now - since,
            deadline=now + time_left(limit, used),
            around=Surroundings(self.config.drain, self._own_uid),
        )
        began = None if fresh else float(state.drain_started)
        drain.returns.restore(state.returns, state.returned, began)
        if self.config.dry_run:
            drain.returns.saved = None
        if state.phase is Phase.DRAINED:
            drain.watch_on()
        elif fresh:
            drain.begin_wave(0)
        for budget in self._budgets.values():
            drain.budget_changed(budget, self._clock())
        # Only before the first eviction: what was begun is ended, by whichever process.
        just_begun = not used and (fresh or 0 <= since < JUST_BEGUN)
        check = self.config.drain.headroom and just_begun and not drain.after
        run = Running(drain, self._api.pods_of(node), self._callbacks.nodes(), check)
        run.clock = DrainClock(limit, used)
        self.running[uid] = run
        self.revision += 1
        supervision.start("pods", lambda: self._watch_pods(run), run.stop, name=f"pods-{node}")

    def watch_on(self, uid: str) -> None:
        """The node was drained: keep watching for pods that return."""
        run = self.running.get(uid)
        if run is not None and not run.drain.after:
            run.drain.watch_on()
            self._rooms.release(uid)
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

    def rest(self, uid: str, why: str) -> None:
        """Begin nothing more: the node recovers, as `why` says."""
        run = self.running.get(uid)
        if run is None or run.paused_since is not None:
            return
        run.paused_since, run.news = self._clock(), True
        self._credit(run, run.paused_since)
        if run.drain.evictions and not run.drain.after:
            text = f"no more pods are evicted for now: {why}"
            self._callbacks.say(run.drain.node, uid, "DrainPaused", text, False)

    def go_on(self, uid: str) -> int:
        """After a rest; returns the seconds that it lasted, 0 = it did not rest.

        Its deadline has waited too: pods are deleted after time in which they could have gone.
        """
        run = self.running.get(uid)
        if run is None or run.paused_since is None:
            return 0
        now = self._clock()
        rested = max(1, round(now - run.paused_since))
        run.paused_since, run.news = None, True
        self._credit(run, now)
        return rested

    def _credit(self, run: Running, now: float) -> None:
        """Time in which nothing may leave the node does not count for its deadline."""
        idle = self._stopped or run.paused_since is not None
        run.drain.deadline += run.clock.credit(now, idle=idle)

    def used(self, uid: str) -> int:
        """Seconds of its deadline that the drain has used."""
        run = self.running.get(uid)
        return 0 if run is None else int(run.clock.used(run.drain.deadline, self._clock()))

    def to_note(self, now: float) -> dict[str, int]:
        """The drains (nodes' uids) whose used seconds are to be written down now."""
        found = {}
        for uid, run in self.running.items():
            idle = run.ended or run.drain.after or run.paused_since is not None
            used = None if idle else run.clock.to_note(run.drain.deadline, now)
            if used is not None:
                found[uid] = used
        return found

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

    def end(self, uid: str) -> None:
        """Stop at once: done, cancelled, or not ours any more."""
        run = self.running.pop(uid, None)
        if run is not None:
            self.revision += 1
            run.stop.set()
            self._rooms.release(uid)
            run.pods.close()

    def end_all(self) -> None:
        """Stop every drain; requests that were sent continue in the API server."""
        for uid in list(self.running):
            self.end(uid)
        self._stop_budgets()
        # What was read in one term of leadership is not believed in the next.
        self._rooms, self._daemon_sets = Rooms(self._api), None

    # -- watching -----------------------------------------------------------------------

    def _watch_pods(self, run: Running) -> None:
        drain = run.drain

        def changed(change: Change[Pod]) -> None:
            listed = source.listing and not source.cached
            self._post(lambda: heard(change, listed))

        def heard(change: Change[Pod], listed: bool) -> None:
            late = listed and change.new is not None and _was_there(change.new, drain)
            drain.pod_changed(change.old, change.new, late=late)
            if change.new is None and change.old is not None:
                self._rooms.left(drain.uid, change.old.uid)
            run.news = True

        source = _CachedFirst(run.pods)

        def synced() -> None:
            sure = not source.cached
            if drain.synced:
                self._post(lambda: self._confirmed(run, sure=sure))
                return
            pods = list(reflector.items.values())
            around = self._surroundings(drain.node, pods, run.others)
            crowded = self._no_room(run, pods, around)

            def ready() -> None:
                if run.stop.is_set():
                    return  # it was ended meanwhile
                if crowded:
                    run.ended = True
                    self._callbacks.no_room(drain, crowded)
                    return
                drain.surroundings_changed(around)
                drain.synced = True
                self._confirmed(run, sure=sure)

            self._post(ready)

        run.watch = reflector = Reflector(
            source,
            node_pod_from_json,
            lambda pod: pod.id,
            changed,
            synced,
            lambda failure: log.warning("pods of %s: %s", drain.node, failure),
            run.stop,
        )
        reflector.run()

    def _surroundings(self, node: str, pods: list[Pod], others: list[Node]) -> Surroundings:
        """Facts for sorting the pods, read before the drain begins. What is not known
        then, and what pods that come later need, is looked up (see lookups.py)."""
        wanted = frozenset(
            (pod.namespace, pod.owner_name, pod.owner_uid) for pod in pods if of_daemon_set(pod)
        )
        known, gone = self._known_daemon_sets(wanted)
        found = read_claims(self._api, pods)
        for claim, failure in found.failed.items():
            log.warning("claim %s/%s on %s: %s", *claim, node, failure)
        return Surroundings(
            self.config.drain,
            self._own_uid,
            known,
            found.local(others),
            frozenset(found.failed),
            gone_daemon_sets=gone,
            claim_terms=found.terms,
        )

    def _no_room(self, run: Running, pods: list[Pod], around: Surroundings) -> str:
        """Why the pods do not fit elsewhere, empty if they do (or it was not checked)."""
        if not run.checked:
            return ""
        going = tuple(
            pod
            for pod in pods
            if pod.deletion is None and sort_pod(pod, around, self._clock()).fate is Fate.EVICT
        )
        move = Move(run.drain.uid, going, tuple(run.nodes), around.claim_terms)
        return self._rooms.check(move, self.config.drain.autoscaler, self._clock(), run.stop)

    def _known_daemon_sets(self, wanted: DaemonSets) -> tuple[DaemonSets, frozenset[str]]:
        """Those that exist, and the uids of the wanted ones that do not.

        What was listed a while ago is believed of those that it shows only.
        """
        with self._daemon_lock:
            kept = self._daemon_sets
            fresh = kept is not None and time.monotonic() - kept[0] < DAEMON_SETS_KEPT
            if kept is not None and fresh and wanted <= kept[1]:
                return kept[1], frozenset()
            if not wanted:
                return frozenset(), frozenset()
            begun = time.monotonic()
            try:
                found = all_daemon_sets(self._api)
            except ApiFailure as failure:
                log.warning("DaemonSets cannot be listed, so each one is read: %s", failure)
                return frozenset(), frozenset()
            self._daemon_sets = (begun, found.known)
            return found.known, found.gone(wanted)

    # -- budgets ------------------------------------------------------------------------

    def _watch_budgets(self) -> None:
        if self._budget_stop is not None:
            return
        stop = self._budget_stop = threading.Event()
        self._budget_source = self._api.budgets()
        reflector = Reflector(
            self._budget_source,
            budget_from_json,
            lambda budget: budget.id,
            lambda change: self._post(lambda: self._budget_changed(change, stop)),
            lambda: None,
            lambda failure: log.warning("PodDisruptionBudgets: %s", failure),
            stop,
        )
        supervision.start("budgets", reflector.run, stop)

    def _budget_changed(self, change: Change[Budget], stop: threading.Event) -> None:
        budget = change.new or change.old
        if budget is None or self._budget_stop is not stop:
            return  # of a watch that was ended: a later one may already have reported more
        if change.new is None:
            self._budgets.pop(budget.uid, None)
        else:
            self._budgets[budget.uid] = budget
        for run in self.running.values():
            run.drain.budget_changed(budget, self._clock(), gone=change.new is None)
            run.news = True

    def _stop_budgets(self) -> None:
        if self._budget_stop is not None and self._budget_source is not None:
            self._budget_stop.set()
            self._budget_source.close()
        self._budget_stop = self._budget_source = None
        self._budgets.clear()
        for run in self.running.values():
            run.drain.budgets.clear()  # nobody would tell that one of them is gone

    # -- acting -------------------------------------------------------------------------

    def advance(self, now: float, *, stopped: bool) -> float | None:
        """Do what is to be done now; returns when to be called again at the latest."""
        wake: float | None = None
        everything = stopped is not self._stopped or self.config is not self._looked_with
        self._looked_with, self._stopped = self.config, stopped
        for run in list(self.running.values()):
            self._credit(run, now)
            if run.ended:
                continue
            if everything or run.news or now >= run.due:
                self._look(run, now, stopped=stopped)
            if not run.ended:
                wake = run.due if wake is None else min(wake, run.due)
        self._mind_budgets(now)
        return wake

    def _look(self, run: Running, now: float, *, stopped: bool) -> None:
        """Do what one drain calls for; only those that changed or are due, for they are many."""
        run.news = False
        stopped = stopped or run.paused_since is not None
        orders = run.drain.step(
            now,
            on_deadline=self.config.drain.on_deadline,
            stopped=stopped,
            dry_run=self.config.dry_run,
        )
        self._carry_out(run, orders)
        moments = [now + LOOK_AGAIN, orders.wake, self._report(run, now)]
        if run.drain.returns.unsaved and not stopped and not run.ended:
            self._callbacks.returned(run.drain)
            moments.append(now + BUSY_AGAIN)
        if orders.new_wave is not None and not run.checking:
            moments.append(run.check_at)
        if orders.done:
            moments.append(now + BUSY_AGAIN)
        if run.confirming and not run.confirmed:
            pending = run.watch is not None and run.watch.relist_pending
            moments.append(now + (BUSY_AGAIN if pending else CONFIRM_AGAIN))
        moments += self._note_progress(run, now)
        run.due = min(moment for moment in moments if moment is not None)

    def _note_progress(self, run: Running, now: float) -> list[float]:
        """Whether it makes no progress; returns when to evaluate again."""
        drain, before = run.drain, (run.standing_since, run.asks_at)
        run.standing_since = None if self._idle(run) else drain.standing_since(now)
        run.asks_at = drain.asks_for_place_at(now)
        moments = [
            drain.standstill.due,
            run.asks_at,
            drain.deadline if drain.without_place(now) else None,
        ]
        later = [moment for moment in moments if moment is not None and moment > now]
        # The planner is to hear of it.
        return [*later, now + BUSY_AGAIN] if before != (run.standing_since, run.asks_at) else later

    def _idle(self, run: Running) -> bool:
        """It does nothing because it is not to."""
        return self._stopped or run.paused_since is not None or self.config.dry_run

    @property
    def standing(self) -> dict[str, float]:
        """The drains (nodes' uids) that make no progress, since when."""
        return {
            uid: run.standing_since
            for uid, run in self.running.items()
            if run.standing_since is not None and not run.ended
        }

    def asking(self, now: float) -> frozenset[str]:
        """The drains without a place that are to get one again."""
        return frozenset(
            uid
            for uid, run in self.running.items()
            if run.asks_at is not None and run.asks_at <= now and run.paused_since is None
        )

    def follow_places(self, given: Mapping[str, float], now: float) -> None:
        """These drains (nodes' uids) have given their place away, the others have one."""
        for uid, run in self.running.items():
            standstill, drain = run.drain.standstill, run.drain
            if uid in given and standstill.given_at is None:
                self._say_without_place(drain, now)
                standstill.give(now)
            elif uid not in given and standstill.given_at is not None:
                standstill.take(now)
                if now < drain.deadline and not drain.after:
                    text = "its drain continues: a drain slot is free again"
                    self._callbacks.say(drain.node, uid, "DrainResumed", text, False)
            else:
                continue
            run.news, run.standing_since, run.asks_at = True, None, None

    def _say_without_place(self, drain: NodeDrain, now: float) -> None:
        if drain.standstill.seen is None:  # it was begun by a predecessor
            text = "other nodes are drained first: more drains are running than allowed"
            self._callbacks.say(drain.node, drain.uid, "DrainPaused", text, False)
            return
        why = describe(drain.blockers(now)) or "its pods cannot be evicted"
        standing = now - drain.standstill.progress_at
        text = f"no pod has left for {standing:.0f}s, another node is drained first: {why}"
        self._callbacks.say(drain.node, drain.uid, "DrainStalled", text, True)

    def _carry_out(self, run: Running, orders: Orders) -> None:
        if orders.done or (self.config.dry_run and not orders.look_up and self._tried_all(run)):
            if not run.confirmed:
                self._confirm(run)
                return
            run.ended = True
            self._callbacks.done(run.drain)
            return
        if orders.new_wave is not None and not run.checking and self._clock() >= run.check_at:
            run.checking = True
            wave = orders.new_wave
            self._workers.submit(lambda: self._check_node(run, wave))
        if run.drain.after and orders.evict:
            self._say_returned(run, orders)
        for question in orders.look_up:
            self._look_up(run, question)
        for pod in orders.check:
            self._check_pod(run, pod)
        for pod in orders.evict:
            self._submit(run, pod, delete=False)
        for pod in orders.delete:
            self._submit(run, pod, delete=True)

    def _confirm(self, run: Running) -> None:
        """List its pods from the server itself; see `_confirmed`.

        A lagging cache shows a node without the pods that were bound to it last, or empty.
        """
        if run.watch is None:
            return
        if not run.confirming:
            run.confirming = True
            run.watch.ask_relist()
        if run.watch.relist_pending:
            run.pods.close()  # the watch may have begun only just now

    def _confirmed(self, run: Running, *, sure: bool) -> None:
        """Its pods were listed, and the changes were posted; sure: not from a cache."""
        run.confirmed = run.confirmed or sure
        run.news = True

    def _tried_all(self, run: Running) -> bool:
        """In dry-run no pod is evicted: a drain ends when each pod got a dry-run eviction."""
        drain = run.drain
        clear = drain.synced and not drain.lookups.pending
        return clear and all(
            uid in run.tried or item.pod.deletion is not None
            for uid, item in drain.evictions.items()
        )

    def _submit(self, run: Running, pod: Pod, *, delete: bool) -> None:
        grace, dry_run = self.config.drain.grace_period, self.config.dry_run

        def job() -> None:
            waits = run.paused_since is not None or run.drain.without_place(self._clock())
            if self._stopped or waits or run.stop.is_set():
                self._post(lambda: self._called_back(run, pod))
                return
            try:
                ask = self._api.delete_pod if delete else self._api.evict
                with supervision.expected("worker", f"the eviction of {pod.id}"):
                    answer = ask(pod.namespace, pod.name, pod.uid, grace, dry_run=dry_run)
                    result = classify_eviction(answer)
            except NotLeader as failure:
                result = EvictionResult(Outcome.UNAVAILABLE, failure.message)
            except ApiFailure as failure:
                result = EvictionResult(Outcome.UNAVAILABLE, str(failure))
            self._post(lambda: self._answered(run, pod, result))

        self._workers.submit(job, Purpose.EVICTIONS, run.drain.node)

    def _look_up(self, run: Running, question: Question) -> None:
        """Read what decides about some of the node's pods."""
        others = [item for item in self._callbacks.nodes() if item.uid != run.drain.uid]

        def job() -> None:
            answer: Answer | None = None
            what = f"{question.subject.value} {question.namespace}/{question.name}"
            try:
                with supervision.expected("worker", f"the read of {what}"):
                    answer = answer_of(self._api, question, others)
            except ApiFailure as failure:
                log.warning("%s, of pods on %s: %s", what, run.drain.node, failure)
            self._post(lambda: answered(answer))

        def answered(answer: Answer | None) -> None:
            run.news = True
            run.drain.looked_up(question, answer, self._clock())

        self._workers.submit(job, Purpose.LOOKUPS)

    def _check_pod(self, run: Running, pod: Pod) -> None:
        """Read whether the pod is being deleted, as its eviction was accepted a while ago."""

        def job() -> None:
            deleted = True
            try:
                with supervision.expected("worker", f"the read of pod {pod.id}"):
                    found = self._api.pod(pod.namespace, pod.name)
                    fresh = None if found is None else node_pod_from_json(found)
                    deleted = fresh is None or fresh.uid != pod.uid or fresh.deletion is not None
            except ApiFailure as failure:
                log.warning("pod %s, whose eviction was accepted: %s", pod.id, failure)
            self._post(lambda: checked(deleted))

        def checked(deleted: bool) -> None:
            run.news = True
            run.drain.checked(pod.uid, self._clock(), deleted=deleted)

        self._workers.submit(job, Purpose.LOOKUPS)

    def _called_back(self, run: Running, pod: Pod) -> None:
        run.news = True
        run.drain.not_probed(pod.uid)

    def _answered(self, run: Running, pod: Pod, result: EvictionResult) -> None:
        now = self._clock()
        self._callbacks.evicted(result.outcome)
        run.news = True
        run.tried.add(pod.uid)
        run.drain.answered(pod.uid, result, now)
        if result.outcome in (Outcome.BUDGET, Outcome.PROCESSING, Outcome.SEVERAL_BUDGETS):
            self._watch_budgets()
        if not result.outcome.over:
            log.info("%s not evicted: %s %s", pod.id, result.outcome.value, result.message)

    def _check_node(self, run: Running, wave: int) -> None:
        """Before a wave the node is read afresh: it must still be ours to drain."""
        drain = run.drain
        try:
            with supervision.expected("worker", f"the read of node {drain.node}"):
                raw = self._api.node(drain.node)
                ours = self.config.dry_run or still_draining(raw, drain.uid)
                fresh = node_from_json(raw)
            if ours:
                self._post(lambda: self._begin_wave(run, wave))
                return
            log.info("node %s is no longer cordoned by this remediator, its drain ends", drain.node)
            self._post(lambda: self._callbacks.not_ours(fresh))
        except ApiFailure as failure:
            log.warning("node %s before wave %d: %s", drain.node, wave, failure)
        self._post(lambda: self._check_later(run))

    def _begin_wave(self, run: Running, wave: int) -> None:
        run.checking, run.news, run.checked_in_vain = False, True, 0
        run.drain.begin_wave(wave)

    def _check_later(self, run: Running) -> None:
        """No more pods are evicted until the node was read again and is still ours to drain.

        The loop ends the drain when it observes the change too. Its watch may lag, and would
        restart at once a drain that is ended here.
        """
        run.checking, run.news = False, True
        run.checked_in_vain += 1
        run.check_at = self._clock() + fallback(Outcome.UNAVAILABLE, run.checked_in_vain)
        run.drain.wave = -1

    def _mind_budgets(self, now: float) -> None:
        if self._budget_stop is None:
            return
        if any(not run.drain.after or run.drain.evictions for run in self.running.values()):
            self._budgets_unused_since = None
        elif self._budgets_unused_since is None:
            self._budgets_unused_since = now
        elif now - self._budgets_unused_since > BUDGETS_KEPT:
            self._stop_budgets()

    # -- saying -------------------------------------------------------------------------

    def _report(self, run: Running, now: float) -> float | None:
        """Report the blockers, at most once a minute; returns when to evaluate again."""
        drain = run.drain
        for text in sorted(drain.returned_too_often - run.left_reported):
            self._callbacks.say(
                drain.node, drain.uid, "PodsLeftOnNode", f"not evicted: {text}", True
            )
        run.left_reported = drain.returned_too_often
        if run.paused_since is not None:
            return None
        if now >= drain.deadline and not drain.deadline_reported and not run.ended:
            drain.deadline_reported = True
            text = describe(drain.blockers(now)) or f"{len(drain.evictions)} pods still terminating"
            message = (
                f"not empty after {run.clock.limit:g}s "
                f"(onDeadline: {self.config.drain.on_deadline}): {text}"
            )
            self._callbacks.say(drain.node, drain.uid, "DrainDeadlinePassed", message, True)
        blockers = drain.blockers(now)
        if not blockers:
            run.blocked_since = None
            return None
        if run.blocked_since is None:
            run.blocked_since = now
        speak_at = max(run.blocked_since + BLOCKED_FIRST, run.reported_at + BLOCKED_EVERY)
        if now < speak_at:
            return speak_at
        run.reported_at = now
        self._callbacks.say(drain.node, drain.uid, "DrainBlocked", describe(blockers), True)
        return now + BLOCKED_EVERY

    def _say_returned(self, run: Running, orders: Orders) -> None:
        """Say what was put on a drained node, at most once a minute."""
        now = self._clock()
        put = [pod.id for pod in orders.evict if not run.drain.evictions[pod.uid].stayed]
        if not put or now < run.returned_reported_at + BLOCKED_EVERY:
            return
        run.returned_reported_at = now
        names = ", ".join(put[:3])
        more = f" and {len(put) - 3} more" if len(put) > 3 else ""
        text = f"scheduled to the drained node despite its cordon, evicted again: {names}{more}"
        self._callbacks.say(run.drain.node, run.drain.uid, "PodsOnDrainedNode", text, True)

    def blocked_causes(self, now: float) -> Counter[str]:
        """Pods that drains wait for, by cause."""
        counts: Counter[str] = Counter()
        for run in self.running.values():
            if run.paused_since is None:
                counts.update(run.drain.causes(now))
        return counts


def _was_there(pod: Pod, drain: NodeDrain) -> bool:
    """Whether the pod was made before the drain began: a cache did not show it, it is no return."""
    return pod.created is None or pod.created < drain.started - CLOCK_TOLERANCE


class _CachedFirst:
    """Lists from the server's watch cache at first: every eviction is guarded by the pod's uid."""

    def __init__(self, pods: Collection) -> None:
        self._pods = pods
        self._listed = False
        #: Whether the last list was from the cache; and whether it is being posted.
        self.cached = self.listing = True

    def pages(self) -> Iterator[tuple[list[Json], str]]:
        self.cached, self._listed, self.listing = not self._listed, True, True
        return self._pods.pages(cached=self.cached)

    def watch(self, version: str, stop: threading.Event) -> Iterator[WatchEvent]:
        self.listing = False
        return self._pods.watch(version, stop)


def describe(blockers: list[Blocker], limit: int = 3) -> str:
    """The blockers in one line, the largest first: what, how many pods, the first three."""
    parts = []
    for blocker in blockers[:limit]:
        names = ", ".join(blocker.pods[:3]) + (", …" if len(blocker.pods) > 3 else "")
        parts.append(f"{blocker.text} ({len(blocker.pods)}: {names})")
    if len(blockers) > limit:
        parts.append(f"and {len(blockers) - limit} more causes")
    return "; ".join(parts)


def still_draining(raw: Json, uid: str) -> bool:
    """Whether the node just read is the one (uid) that we are draining, or have drained."""
    node = node_from_json(raw)
    try:
        state = read_state(node)
    except Unreadable:
        return False
    if node.uid != uid or not node.unschedulable or node.deleting or state is None:
        return False
    return state.phase in (Phase.DRAINING, Phase.DRAINED)
