"""The main loop: one thread that owns all state, fed by watches, timers and answers.

Everything that changes state arrives as a callable in one inbox. Blocking requests run in
worker threads and report back through the inbox.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from selfheal_remediator.config import PODS_HUNG, Config
from selfheal_remediator.controller.peers import Peers
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.runner import Callbacks, Draining
from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.healing.node_view import node_path, node_trouble, reported_of_nodes
from selfheal_remediator.healing.plan import RestartAction
from selfheal_remediator.healing.policy_metrics import policy_values
from selfheal_remediator.healing.runner import Callbacks as HealingCallbacks
from selfheal_remediator.healing.runner import Healer
from selfheal_remediator.kube import observe_first
from selfheal_remediator.kube.client import Collection, KubernetesApi
from selfheal_remediator.kube.election import (
    LABEL,
    PAUSE_KEY,
    Leader,
    LeaseView,
    Stop,
    lease_from_json,
    trusted_annotations,
)
from selfheal_remediator.kube.events import EventWriter, NodeEvent, ObjectEvent
from selfheal_remediator.kube.informer import WATCH_LOST, Change, Reflector, version_number
from selfheal_remediator.kube.objects import Node, node_from_json
from selfheal_remediator.kube.responses import Outcome
from selfheal_remediator.metrics import Metrics, named, publish
from selfheal_remediator.node.annotation import Phase, State
from selfheal_remediator.node.conditions import NodeHistory, observe
from selfheal_remediator.node.evaluate import Action, Kind, Scope, assess, cordoned_by, same_purpose
from selfheal_remediator.node.external_claims import (
    LEASE_NAMESPACE,
    MACHINE_ANNOTATION,
    leased,
    machines,
)
from selfheal_remediator.node.patches import node_patch
from selfheal_remediator.node.planner import Entry, Planner
from selfheal_remediator.node.unanswered import Doubt, Doubts, Unanswered, may_be_made
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.pool import Job, Purpose, Workers

log = logging.getLogger(__name__)

#: The longest sleep of the loop; it ticks at least so often, which /healthz checks.
LONGEST_SLEEP = 10.0
STUCK_AFTER = 60.0
METRICS_EVERY = 1.0
PEERS_EVERY = 30.0
#: How often a change is tried on a node that somebody else keeps changing.
CONFLICTS = 4
MAX_BATCH = 500


class Clock:
    """Seconds since the epoch that never jump: the wall clock at the start, then monotonic."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() + self._offset


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are: `owner` names the installation, `pod_uid` this pod (empty outside one)."""

    owner: str
    pod_uid: str = ""


class Remediator:
    """Wires the parts together; see the module."""

    def __init__(
        self,
        config: Config,
        api: KubernetesApi,
        leader_of: Callable[[Callable[[bool], None], Callable[[Mapping[str, str]], None]], Leader],
        events: EventWriter,
        metrics: Metrics,
        identity: Identity,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._api, self._events, self.metrics = api, events, metrics
        self.clock = clock or Clock()
        #: As configured; `config` is what is acted by: dryRun while it only observes.
        self._configured = config
        self._start = observe_first.FirstStart()
        #: Whether this process has said that it observes.
        self._observes = False
        self.config = config = observe_first.effective(config, None, self.clock())
        api.dry_run = config.dry_run
        self._owner = identity.owner
        self._inbox: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._workers = Workers(config.api.max_in_flight)
        #: Counts terms of leadership; what was asked in one is not heard or done in the next.
        self._term = 0
        self.leader = leader_of(
            lambda leading: self.post(lambda: self._lead(leading)),
            lambda annotations: self.post(lambda: self._lease_says(annotations)),
        )
        #: Counts the times that everything was stopped (a pause, an uninstall, another mode): what
        #: waits for its turn to be sent meanwhile is not sent.
        self._stops = 0
        api.fence = lambda: (self.leader.fence(), self._stops)
        self.leader.unfit = self._unfit
        self.leader.on_blocked = lambda text: self.post(
            lambda: self._say_of_itself("LeaseBlocked", text, warning=True)
        )
        self.planner = Planner(config, self._owner, self.clock())
        callbacks = Callbacks(
            done=self._drained,
            no_room=self._no_room,
            nodes=lambda: [entry.node for entry in self.planner.entries.values()],
            say=self._say,
            evicted=self._count_eviction,
            not_ours=self._take_in,
            returned=self._pods_returned,
        )
        self._doubts = Doubts()
        self.draining = Draining(
            api, config, self._workers, self.post, identity.pod_uid, callbacks, self.clock
        )
        self.healer = Healer(
            api, config, self._workers, self.post, self._healing_calls(), self.clock
        )
        self._node_source = api.nodes()
        self._nodes = Reflector(
            self._node_source,
            node_from_json,
            lambda node: node.name,
            lambda change: self.post(lambda: self._node_changed(change)),
            self._nodes_listed,
            lambda failure: log.warning("nodes: %s", failure),
            self._stop,
        )
        self.synced = False
        self.known_once = False
        #: The request for a list of nodes that has to be answered before anything is done.
        self._list_wanted = 0
        self._leading = False
        self._paused = ""
        #: Until when nothing at all is changed: an uninstall is under way.
        self._stopped_until = 0.0
        self._stop_read = Stop()
        #: Why nothing new is begun now, beside a pause; empty = it may be.
        self._unhealthy = ""
        self._peers = Peers(identity.owner)
        self._peers_at, self._peers_failures = 0.0, 0
        #: Looks at other remediators are numbered: a slow one does not undo a later one.
        self._looks_around = self._last_look_around = 0
        self._machines_wanted = False
        self._machines_complaint = ""
        self._machines_seen: dict[str, str] = {}
        #: Who comes before us; None = not known yet, and then nothing is done.
        self._first: str | None = None
        self._metrics_at = 0.0
        self._metrics_owed = False
        self._published = (-1, False)
        #: The drains' revision at which all nodes were looked through for drains.
        self._followed = -1
        #: Drains (nodes' uids) that are begun later, as their nodes could not be changed.
        self._put_off: dict[str, float] = {}
        self.last_tick = time.monotonic()
        metrics.watch_age("nodes", self.watch_age)
        metrics.may_cordon(rule.condition for rule in config.rules if rule.cordons)

    # -- life ---------------------------------------------------------------------------

    def post(self, job: Job) -> None:
        """Have the main loop run this next; callable from any thread."""
        self._inbox.put(job)

    def watch_age(self) -> float:
        """Seconds since the node watch's last sign of life."""
        return time.monotonic() - self._nodes.last_contact

    def healthy(self) -> str:
        """What is wrong with this process, empty = nothing (never the API server's absence)."""
        age = time.monotonic() - self.last_tick
        if age > STUCK_AFTER:
            return f"the main loop has not ticked for {age:.0f}s"
        age = time.monotonic() - self.leader.last_tick
        if age > STUCK_AFTER:
            return f"the lease thread has not ticked for {age:.0f}s"
        return ""

    def ready(self) -> str:
        """What is missing before this process can do its work, empty = nothing."""
        return self._unfit() if self.known_once else "the nodes are not known yet"

    def _unfit(self) -> str:
        """Why this process could not do a leader's work, empty = it can; from any thread."""
        age = self.watch_age()
        return f"the node watch is silent for {age:.0f}s" if age > WATCH_LOST else ""

    def stop(self) -> None:
        """End soon; callable from any thread and from a signal handler."""
        self._stop.set()
        self._inbox.put(lambda: None)

    def run(self) -> None:
        """Work until `stop` is called, then let go of the Lease."""
        self._events.start()
        supervision.start("nodes", self._nodes.run, self._stop)
        self.leader.start()
        wake = self.clock()
        while not self._stop.is_set():
            self._handle(wake)
            self.last_tick = time.monotonic()
            wake = self._act()
        self.leader.close()
        self.healer.end()
        self.draining.end_all()
        self._node_source.close()
        self._events.close(2.0)

    def _handle(self, wake: float) -> None:
        """Wait for news until `wake`, then take in all that has come."""
        timeout = min(max(0.0, wake - self.clock()), LONGEST_SLEEP)
        try:
            job = self._inbox.get(timeout=timeout) if timeout else self._inbox.get_nowait()
        except queue.Empty:
            return
        for _ in range(MAX_BATCH):
            job()
            try:
                job = self._inbox.get_nowait()
            except queue.Empty:
                return
        job()

    def _act(self) -> float:
        now = self.clock()
        longest = min(now + LONGEST_SLEEP, self._follow_mode(now))
        if self._leading and self._unfit():
            self.leader.give_up(self._unfit())  # another replica may hear the nodes
        if self._leading and self._nodes.relist_pending:
            self._node_source.close()  # the watch may have begun only just now
            return now + 0.05
        if not (self._leading and self.synced):
            self._publish(now, {})
            return longest
        if now >= self._peers_at:
            self._peers_at = now + PEERS_EVERY
            self._machines_wanted = any(
                MACHINE_ANNOTATION in entry.node.annotations
                for entry in self.planner.entries.values()
            )
            self._looks_around += 1
            look, term = self._looks_around, self._term
            self._workers.submit(lambda: self._look_around(look, term), Purpose.LOOKUPS)
        if self._first is None or self._first or now < self._stopped_until:
            self._publish(now, {})
            return min(longest, self._peers_at)
        unhealthy = self._unfit()
        if not unhealthy and self._api.budget.closed_for > 1:
            unhealthy = "the API server asks to be left alone"
        self._unhealthy = unhealthy
        slots = self.planner.slots
        slots.standing, slots.ready = self.draining.standing, self.draining.asking(now)
        slots.deadlines = self.draining.deadlines(now)
        plan = self.planner.plan(now, paused=self._paused, unhealthy=unhealthy)
        self.draining.follow_places(slots.given, now)
        for action in plan.intents:
            self._submit(action)
        changed = self.planner.take_changed()
        if self.draining.revision != self._followed:
            self._followed = self.draining.revision
            changed.update(self.planner.entries, self.draining.running)
        changed.update(uid for uid, when in self._put_off.items() if when <= now)
        self._follow_drains(changed, now)
        self._note_used(now)
        self._read_again(now)
        wakes = [plan.wake, self._doubts.wake, min(self._put_off.values(), default=None)]
        wakes.append(self.draining.advance(now, stopped=bool(self._paused or unhealthy)))
        wakes.append(self._heal_pods(now, unhealthy))
        self.metrics.tick()
        self._publish(now, plan.limited_by)
        if self._metrics_owed:
            wakes.append(self._metrics_at)
        return min([longest, *(moment for moment in wakes if moment is not None)])

    # -- news ---------------------------------------------------------------------------

    def _node_changed(self, change: Change[Node]) -> None:
        self.planner.apply(change, self.clock())
        if change.new is not None:
            self._seen(change.new, restored=change.restored)
        elif change.old is not None:
            self._doubts.forget(change.old.uid)
            self.healer.healing.node_gone(change.key)
            self.draining.end(change.old.uid)

    def _nodes_listed(self) -> None:
        """In the watch's thread: all nodes were read."""
        answers, version = self._nodes.answers, self._nodes.list_version
        nodes = tuple(self._nodes.items.values())
        self.post(lambda: self._went_back(nodes, version))
        self.post(lambda: self._nodes_known(answers))

    def _went_back(self, nodes: Iterable[Node], version: int) -> None:
        """Take in what is listed older than it is known, after a restore of etcd."""
        for node in self.planner.listed(nodes, version, self.clock()):
            log.warning("%s is older than it was: etcd was restored", node.name)
            self._seen(node, restored=True)

    def _nodes_known(self, answers: int) -> None:
        if not self.known_once:
            self.known_once = True
            log.info("%d nodes known", len(self.planner.entries))
            self._warn_of_unknown_conditions()
        # A list that was under way at a takeover does not show what the predecessor did last.
        self.synced = answers >= self._list_wanted
        self.metrics.relists.labels("nodes").inc()

    def _warn_of_unknown_conditions(self) -> None:
        known = {name for e in self.planner.entries.values() for name in e.node.conditions}
        missing = sorted({rule.condition for rule in self.config.rules} - known - {PODS_HUNG})
        if missing and known:
            log.warning(
                "no node has the conditions %s (of the rules); those that exist: %s",
                ", ".join(missing),
                ", ".join(sorted(known)),
            )

    def _lead(self, leading: bool) -> None:
        self._leading = leading
        self._term += 1
        self._first, self._peers_at, self._followed = None, 0.0, -1
        self.metrics.leader.set(leading)
        self.metrics.read_only.set(False)  # until it is known; who does not lead does not say
        self.planner.forget_pending()
        self._doubts.clear()
        if leading:
            # What a predecessor did a moment ago may not have come by the watch yet, and the
            # limits have to count it: read all nodes again before anything is done.
            self.synced = False
            self.planner.begin_term(self.clock())
            self._list_wanted = self._nodes.ask_relist()
            self.healer.begin()
            self._say_observing()
        else:
            self.healer.end()
            self.draining.end_all()

    def _say_observing(self) -> None:
        until = observe_first.observing_until(self._configured, self._start.counts)
        if until is None or self.clock() >= until:
            return
        self._observes = True
        text = (
            f"it only says what it would do until {_time_text(until)} (observeFirst); "
            "see `selfheal-remediator plan`"
        )
        log.warning("observing: %s", text)
        self._say_of_itself("Observing", text)

    def _say_of_itself(self, reason: str, text: str, *, warning: bool = False) -> None:
        """An Event on the Lease."""
        namespace, _, name = self._owner.partition("/")
        group, uid = "coordination.k8s.io/v1", self.leader.lease_uid
        self._events.say(ObjectEvent(group, "Lease", namespace, name, uid, reason, text, warning))

    def _follow_mode(self, now: float) -> float:
        """Begin to enforce when the time of only observing is over; returns when it will be."""
        wanted = observe_first.effective(self._configured, self._start.counts, now)
        if wanted.dry_run is not self.config.dry_run:
            self._change_mode(wanted)
        until = observe_first.observing_until(self._configured, self._start.counts)
        observes = until is not None and until > now
        known = self._start.counts is not None  # else the Lease was not read yet
        self.metrics.paused.set(bool(self._paused) or (observes and known))
        return until if until is not None and observes else float("inf")

    def _change_mode(self, wanted: Config) -> None:
        self._use(wanted)
        if not self._leading:
            return
        if wanted.dry_run:
            self._say_observing()
        elif self._observes:  # else it has only just read that it may act: a restart
            self._observes = False
            text = "it has observed for long enough (observeFirst) and acts from now on"
            log.warning("enforcing: %s", text)
            self._say_of_itself("Enforcing", text)

    def _lease_says(self, annotations: Mapping[str, str]) -> None:
        self._start.read(annotations, self.clock())
        paused = annotations.get(PAUSE_KEY, "")
        if PAUSE_KEY in annotations and not paused:
            paused = "no reason given"
        if paused != self._paused:
            log.warning("paused: %s", paused) if paused else log.warning("resumed")
            self._stops += 1
        self._paused = paused
        self._stop_until(self._stop_read.read(annotations, self.clock()))
        trusted = trusted_annotations(annotations)
        if trusted != self.planner.trusted:
            log.warning("vouched for by a human: %s", ", ".join(sorted(trusted)) or "nothing")
            self.planner.trust(trusted)

    def _stop_until(self, until: float) -> None:
        if until != self._stopped_until and until > self.clock():
            text = observe_first.text_of(until)
            log.warning("stopped until %s: it is being uninstalled", text)
            self._stops += 1
            self.draining.end_all()
            self._followed = -1
        self._stopped_until = until

    def reconfigure(self, config: Config) -> None:
        """Go on with another configuration (callable from any thread)."""
        self.post(lambda: self._reconfigure(config))

    def _reconfigure(self, config: Config) -> None:
        if config.lease != self.config.lease or config.api != self.config.api:
            log.warning("changes of `lease` and `api` take effect at the next start only")
        self._configured = config
        self._use(observe_first.effective(config, self._start.counts, self.clock()))
        log.info("new configuration: mode %s, %d rules", config.mode, len(config.rules))
        self._warn_of_unknown_conditions()
        self._say_observing()

    def _use(self, config: Config) -> None:
        """Act by this configuration from now on."""
        mode_changed = config.dry_run != self.config.dry_run
        if mode_changed:
            self._doubts.clear()
            self.draining.end_all()
            self._api.dry_run = config.dry_run
            self._stops += 1
        policies_changed = config.policies != self.config.policies
        self.config = self.draining.config = self.healer.config = config
        self._followed = -1
        if (policies_changed or mode_changed) and self._leading:
            self.healer.begin()  # what was only rehearsed is decided anew
        self.planner.reconfigure(config, self.clock())
        self.metrics.may_cordon(rule.condition for rule in config.rules if rule.cordons)

    def _look_around(self, look: int, term: int) -> None:
        """In a worker: other remediators' Leases, and what other systems say of nodes."""
        try:
            with supervision.expected("worker", "the look for other remediators"):
                leases = self._leases(self._api.leases(f"{LABEL}=true"))
                marks = leased(self._leases(self._api.leases_in(LEASE_NAMESPACE)), self.clock())
                if self._machines_wanted:
                    marks |= self._machines()
        except ApiFailure as failure:
            log.warning("other remediators cannot be looked for: %s", failure)
            self.post(self._look_again_soon)
            return

        def seen() -> None:
            if term == self._term and look > self._last_look_around:
                self._last_look_around = look
                self._peers_seen(leases, marks)

        self.post(seen)

    def _leases(self, collection: Collection) -> list[LeaseView]:
        return [lease_from_json(raw) for raws, _ in collection.pages() for raw in raws]

    def _machines(self) -> dict[str, str]:
        """Nodes whose machine Cluster API is at work on; where that cannot be read, as it was read
        last."""
        try:
            collection = self._api.machines()
            pages = () if collection is None else collection.pages()
            self._machines_seen = machines(raw for raws, _ in pages for raw in raws)
        except (ApiFailure, LookupError, TypeError, AttributeError) as failure:
            if str(failure) != self._machines_complaint:
                self._machines_complaint = str(failure)
                log.warning("Cluster API's machines cannot be looked at: %s", failure)
        return dict(self._machines_seen)

    def _look_again_soon(self) -> None:
        self._peers_failures += 1
        pause = min(PEERS_EVERY, 2.0**self._peers_failures)
        self._peers_at = min(self._peers_at, self.clock() + pause)

    def _peers_seen(self, leases: list[LeaseView], marks: Mapping[str, str]) -> None:
        self._peers_failures = 0
        self.planner.mark(marks)
        first = self._peers.first(leases, self.clock())
        self.planner.owners_live(self._peers.live)
        if first and first != self._first:
            text = self._peers.reason(first)
            log.warning("%s", text)
            self._say_of_itself("ReadOnly", text, warning=True)
            self.draining.end_all()
        elif self._first and not first:
            log.warning("the other remediator is gone: this one acts from now on")
        self._first = first
        self.metrics.read_only.set(bool(first))

    def _follow_drains(self, uids: Iterable[str], now: float) -> None:
        """Drains follow these nodes' annotations: begin those that are missing, end the others.

        Nodes that are drained are watched on (but not in dry-run, where nothing left them).
        """
        followed = {Phase.DRAINING} if self.config.dry_run else {Phase.DRAINING, Phase.DRAINED}
        for uid in uids:
            self._put_off.pop(uid, None)
            entry = self.planner.entries.get(uid)
            if entry is None:
                self.draining.end(uid)
                continue
            state = entry.assessment.state
            if entry.pending is not None:
                continue
            if (
                state is None
                or state.phase not in followed
                or entry.assessment.standing != state.phase.value
            ):
                self.draining.end(uid)
                continue
            if uid not in self.draining.running:
                if entry.retry_at > now:
                    # The end of a drain could not be written down: not the same again at once.
                    self._put_off[uid] = entry.retry_at
                    continue
                if state.phase is Phase.DRAINING:
                    log.info("going on with the drain of %s", entry.node.name)
                self.draining.begin(entry.node.name, uid, state, fresh=False)
            self._rest(entry, state)

    def _rest(self, entry: Entry, state: State) -> None:
        """A drain rests while its node recovers. Bad again, it has its deadline so much later, also
        for who leads next."""
        node, seen = entry.node, entry.assessment
        if seen.recovering:
            self.draining.rest(node.uid, seen.why)
            return
        rested = self.draining.go_on(node.uid)
        if not rested or state.phase is not Phase.DRAINING:
            return
        used = self.draining.used(node.uid)
        after = replace(state, drain_started=state.drain_started + rested, drain_used=used)
        text = f"{state.condition} is bad again: going on"
        action = Action(Kind.NOTE, node.name, node.uid, after, "DrainResumed", text)
        if self.planner.request(action, self.clock()):
            self.draining.noted(node.uid, used)
            self._submit(action)

    def _note_used(self, now: float) -> None:
        """Write down how much of their deadlines drains have used: who leads next goes by it."""
        for uid, used in self.draining.to_note(now).items():
            entry = self.planner.entries.get(uid)
            state = entry.state if entry is not None else None
            draining = state is not None and state.phase is Phase.DRAINING
            if entry is None or state is None or not draining or self.config.dry_run:
                continue
            after = replace(state, drain_used=used)
            text = f"{used}s of the drain's deadline are used"
            action = Action(Kind.NOTE, entry.node.name, uid, after, "", text)
            if self.planner.request(action, now):
                self.draining.noted(uid, used)
                self._submit(action)

    # -- pods ---------------------------------------------------------------------------

    def _healing_calls(self) -> HealingCallbacks:
        metrics = self.metrics

        def restarted(order: RestartAction) -> None:
            metrics.restarted(order.policy, order.cause.value)

        return HealingCallbacks(
            say=self._events.say,
            node_trouble=lambda name: node_trouble(
                self.planner.entry_named(name), self.planner.marks
            ),
            node_path=lambda name: node_path(
                self.planner.entry_named(name), self.config, self.planner.marks
            ),
            restarted=restarted,
            refused=lambda cause: metrics.healing_refused.labels(cause).inc(),
            asked=lambda result: metrics.progress_probes.labels(result).inc(),
            gone=metrics.forget_policy,
        )

    def _heal_pods(self, now: float, unhealthy: str) -> float | None:
        stopped = f"paused: {self._paused}" if self._paused else unhealthy
        wake = self.healer.advance(now, stopped=stopped)
        cordoned = (
            entry.node.name
            for entry in self.planner.entries.values()
            if entry.state is not None and entry.state.condition == PODS_HUNG
        )
        known = self.healer.known
        signals = reported_of_nodes(
            self.planner.signals, self.healer.findings, cordoned, now, known=known
        )
        if signals != self.planner.signals:
            self.planner.signal(signals, now)
            return now
        return wake

    # -- changing nodes -----------------------------------------------------------------

    def _submit(self, action: Action) -> None:
        entry = self.planner.entries[action.uid]
        scope, node, history = self.planner.scope(), entry.node, entry.history
        term = self._term
        self._workers.submit(lambda: self._attempt(action, scope, node, history, term))

    def _attempt(
        self, action: Action, scope: Scope, node: Node, history: NodeHistory, term: int
    ) -> None:
        """In a worker: whatever happens, the intent is settled."""
        try:
            if term != self._term:
                raise NotLeader  # it was asked for in an earlier term of leadership
            with supervision.expected("worker", f"{action.kind.value} of node {action.node}"):
                self._carry_out(action, scope, node, history)
        except NotLeader:
            self.post(lambda: self.planner.failed(action, self.clock()))
        except Unanswered as failure:
            cause = failure
            self.post(lambda: self._unanswered(action, cause, term))
        except ApiFailure as failure:
            error = failure
            self.post(lambda: self._failed(action, error))

    def _carry_out(self, action: Action, scope: Scope, known: Node, history: NodeHistory) -> None:
        """In a worker: change the node if it still is as it was when this was decided.

        Else (422) it is read afresh and decided again. In dry-run what we know is not what the
        node shows, so it is always read first. Raises ApiFailure, Unanswered where the change may
        have been made.
        """
        node: Node | None = None if scope.config.dry_run else known
        for _ in range(CONFLICTS):
            if node is None:
                node = self.planner.with_signal(node_from_json(self._api.node(action.node)))
                if not self._still_wanted(action, scope, known, history, node):
                    self._notify(self._dropped, action, node)
                    return
            stopped = self.clock() < self._stopped_until or (
                action.kind in (Kind.CORDON, Kind.DRAIN) and bool(self._paused or self._unhealthy)
            )
            if stopped or scope.config.dry_run is not self._api.dry_run:
                # It waited for its turn, and was stopped meanwhile, or the mode changed.
                self.post(lambda: self.planner.failed(action, self.clock()))
                return
            changed = self._change(action, node, dry_run=scope.config.dry_run)
            if changed is not None:
                self._notify(self._settled, action, changed)
                return
            node = None
        raise ApiFailure(409, "Conflict", f"the node changed {CONFLICTS} times meanwhile")

    def _change(self, action: Action, node: Node, *, dry_run: bool) -> Node | None:
        """The node after the change, None = it is not as it was seen any more. See _carry_out."""
        patch = node_patch(action, node, scale_down_disabled=self.config.drain.scale_down_disabled)
        try:
            with supervision.expected("worker", f"{action.kind.value} of node {action.node}"):
                answer = self._api.patch_node(action.node, patch, dry_run=dry_run)
                if answer.ok:
                    return node_from_json(answer.json())
                if answer.status in (409, 422):
                    return None
                raise answer.failure()
        except NotLeader:
            raise  # it was not sent
        except ApiFailure as failure:
            if may_be_made(failure):
                raise Unanswered(version_number(node.version), failure) from failure
            raise

    def _notify(self, what: Callable[[Action, Node], None], action: Action, node: Node) -> None:
        self.post(lambda: what(action, node))

    def _unanswered(self, action: Action, cause: Unanswered, term: int) -> None:
        """A change without an answer may have been made: it is read, and counts until then."""
        entry = self.planner.entries.get(action.uid)
        if entry is None or entry.pending is not action:
            return  # gone, or forgotten: all nodes were listed since
        doubt = self._doubts.begin(action, cause)
        self._seen(entry.actual)  # the watch may have been faster
        if self._doubts.in_doubt(doubt):
            self._workers.submit(lambda: self._find_out(doubt, term))

    def _find_out(self, doubt: Doubt, term: int) -> None:
        """In a worker: read the node once."""
        action = doubt.action
        try:
            if term != self._term:
                return  # all nodes are listed in each term
            with supervision.expected("worker", f"the read of node {action.node}"):
                node = node_from_json(self._api.node(action.node))
        except ApiFailure as failure:
            error = failure
            self.post(lambda: self._not_found_out(doubt, error))
        else:
            self.post(lambda: self._found_out(doubt, node))

    def _found_out(self, doubt: Doubt, node: Node | None) -> None:
        if node is not None:
            self._take_in(node)
        if self._doubts.end(doubt):
            self._failed(doubt.action, doubt.cause)

    def _not_found_out(self, doubt: Doubt, error: ApiFailure) -> None:
        if error.status == 404:
            self._found_out(doubt, None)
            return
        action, report = doubt.action, self._doubts.not_read(doubt, self.clock())
        text = (
            f"whether the change ({action.kind.value}) was made is not known: {doubt.cause}; the "
            f"node cannot be read: {error}; the limits count it as made, and it is read again"
        )
        log.warning("%s: %s", action.node, text)
        if report:
            self._say(action.node, action.uid, "OutcomeUnknown", text, True)

    def _read_again(self, now: float) -> None:
        """Nodes of which it is not known whether they were changed."""
        term = self._term
        for doubt in self._doubts.due(now):
            self._workers.submit(partial(self._find_out, doubt, term))

    def _seen(self, node: Node, *, restored: bool = False) -> None:
        """A node as it is: it may show what became of a change without an answer."""
        version = version_number(node.version)
        doubt = self._doubts.shown(node.uid, version, restored=restored)
        if doubt is not None:
            self._failed(doubt.action, doubt.cause)

    def _take_in(self, node: Node) -> None:
        """What was read afresh; not of a node that was deleted since: nothing would remove it."""
        if node.uid in self.planner.entries:
            self.planner.apply(Change(node.name, None, node), self.clock())
            self._seen(node)

    def _still_wanted(
        self, action: Action, scope: Scope, known: Node, history: NodeHistory, fresh: Node
    ) -> bool:
        if fresh.uid != action.uid:
            return False
        if scope.config.dry_run:
            return True  # what is held in dry-run is not on the node
        if action.state is not None and action.kind is Kind.NOTE and action.state.phase.cordoned:
            return fresh.unschedulable and cordoned_by(action.state.by, fresh)
        now = self.clock()
        seen = observe(history, known, fresh, scope.config.rules, now)
        again = assess(fresh, seen, scope, now)
        asked = again.action or again.limited_action
        return asked is not None and same_purpose(asked, action)

    def _settled(self, action: Action, node: Node) -> None:
        entry = self.planner.entries.get(action.uid)
        if entry is None or entry.pending is not action:
            # It was deleted before the answer came; or the answer is to another term's or mode's
            # question, and the watch tells what has become of it.
            log.info("%s: %s was answered too late to count", action.node, action.kind.value)
            return
        now = self.clock()
        self.planner.settled(action, node, now)
        self.metrics.actions.labels(action.kind.value, "done").inc()
        prefix = "dry-run, would be: " if self.config.dry_run else ""
        log.info("%s: %s%s", action.node, prefix, action.message or action.kind.value)
        if action.reason:
            message = prefix + action.message
            self._say(action.node, action.uid, action.reason, message, action.warning)
        state = action.state
        if state is not None:
            self.draining.returns_saved(action.uid, state)
        if action.kind is Kind.CORDON and state is not None:
            self.metrics.cordoned(state.condition, now - state.first_seen)
            self.metrics.late.observe(max(0.0, now - self.planner.entries[action.uid].due_at))
        if state is not None and state.phase is Phase.DRAINING:
            if action.kind is Kind.CORDON:
                text = f"{prefix}draining for {state.condition}"
                self._say(action.node, action.uid, "DrainStarted", text, False)
            self.draining.begin(action.node, action.uid, state, fresh=True)
        elif state is not None and state.phase is Phase.DRAINED and not self.config.dry_run:
            self.draining.watch_on(action.uid)
        else:
            self.draining.end(action.uid)

    def _dropped(self, action: Action, node: Node) -> None:
        """The fresh read says otherwise: take it in and let the planner think again."""
        log.info("%s: %s is not called for any more", action.node, action.kind.value)
        self.metrics.actions.labels(action.kind.value, "overtaken").inc()
        self.planner.failed(action, self.clock())
        self._reopen(action)
        self._take_in(node)

    def _failed(self, action: Action, failure: ApiFailure, delay: float | None = None) -> None:
        conflict = failure.status in (409, 422)
        result = "conflict" if conflict else "failed"
        self.metrics.actions.labels(action.kind.value, result).inc()
        log.log(
            logging.INFO if conflict else logging.WARNING,
            "%s: %s not done: %s",
            action.node,
            action.kind.value,
            failure,
        )
        self.planner.failed(action, self.clock(), delay or failure.retry_after or 0.0)
        self._reopen(action)

    def _reopen(self, action: Action) -> None:
        """A drain whose end could not be written down has not ended."""
        run = self.draining.running.get(action.uid)
        if run is not None and run.drain.synced:
            self.draining.reopen(action.uid)
        elif run is not None:
            self.draining.end(action.uid)

    # -- drains -------------------------------------------------------------------------

    def _drained(self, drain: NodeDrain) -> None:
        """The node is empty: write it down."""
        now = self.clock()
        entry = self.planner.entries.get(drain.uid)
        state = entry.state if entry is not None else None
        if entry is None or state is None or state.phase is not Phase.DRAINING:
            self.draining.end(drain.uid)
            return
        seconds = now - drain.started
        staying = drain.staying
        if self.config.dry_run:
            text = f"dry-run: {len(drain.evictions)} pods would be evicted"
        else:
            pods = "1 pod" if drain.evicted == 1 else f"{drain.evicted} pods"
            text = f"empty after {seconds:.0f}s, {pods} went"
            if drain.empty_dirs:
                text += f", {drain.empty_dirs} of them with data in emptyDir volumes"
        if staying:
            names = "; ".join(f"{pod.id}: {why}" for pod, why in staying[:5])
            more = f"; and {len(staying) - 5} more" if len(staying) > 5 else ""
            text += f", {len(staying)} stay: {names}{more}"
        done = replace(state, phase=Phase.DRAINED, since=int(now), drain_used=0)
        action = Action(Kind.NOTE, drain.node, drain.uid, done, "DrainSucceeded", text)
        if not self.planner.request(action, now):
            self.draining.reopen(drain.uid)  # busy: asked again in a moment
            return
        self.metrics.drains.labels("succeeded").observe(max(0.0, seconds))
        self._submit(action)

    def _pods_returned(self, drain: NodeDrain) -> None:
        """Write down how often pods were put on the node again, before they are evicted again."""
        entry = self.planner.entries.get(drain.uid)
        state = entry.state if entry is not None else None
        if state is None or state.phase not in (Phase.DRAINING, Phase.DRAINED):
            return
        counts, latest = drain.returns.to_save
        after = replace(state, returns=counts, returned=latest)
        text = "pods that were put here past the cordon are counted"
        action = Action(Kind.NOTE, drain.node, drain.uid, after, "", text)
        if self.planner.request(action, self.clock()):
            self._submit(action)

    def _no_room(self, drain: NodeDrain, why: str) -> None:
        """The pods fit nowhere else: the node stays cordoned, and is looked at again later."""
        now = self.clock()
        entry = self.planner.entries.get(drain.uid)
        state = entry.state if entry is not None else None
        if state is None or state.phase is not Phase.DRAINING:
            self.draining.end(drain.uid)
            return
        back = replace(state, phase=Phase.CORDONED, drain_started=0, drain_used=0, no_room=int(now))
        message = f"cordoned only: {why}"
        action = Action(Kind.NOTE, drain.node, drain.uid, back, "NoHeadroom", message, True)
        if self.planner.request(action, now):
            self.metrics.drains.labels("no-room").observe(max(0.0, now - drain.started))
            self._submit(action)
        else:
            self.draining.end(drain.uid)  # busy: begun again when the node is looked at next

    def _count_eviction(self, outcome: Outcome) -> None:
        self.metrics.evictions.labels(outcome.value).inc()

    # -- saying -------------------------------------------------------------------------

    def _say(self, node: str, uid: str, reason: str, message: str, warning: bool) -> None:
        self._events.say(NodeEvent(node, uid, reason, message, warning))

    def _publish_policies(self) -> None:
        policy_states = tuple(self.healer.healing.policy_states.values())
        # Who does not lead knows none; who leads knows all once they are listed.
        complete = not self._leading or self.healer.listed
        self.metrics.look_after(
            (policy_state.policy.key for policy_state in policy_states), complete=complete
        )
        values = policy_values(policy_states)
        publish(self.metrics.policy_pods, values.pods)
        publish(self.metrics.policy_state, values.states)
        publish(self.metrics.policy_rollouts_stuck, values.stuck)

    def _publish_nodes(self) -> None:
        states: Counter[tuple[str, ...]] = Counter()
        cordoned: Counter[tuple[str, ...]] = Counter()
        info: dict[tuple[str, ...], float] = {}
        rejected: Counter[tuple[str, ...]] = Counter()
        if self._leading:
            for entry in self.planner.entries.values():
                _count(entry, states, cordoned, info, rejected)
        publish(self.metrics.nodes, states)
        publish(self.metrics.cordoned_nodes, cordoned)
        publish(self.metrics.cordoned_node_info, named(info))
        publish(self.metrics.rejected, rejected)

    def _publish(self, now: float, limited_by: Mapping[str, int]) -> None:
        self._metrics_owed = now < self._metrics_at
        if self._metrics_owed:
            return
        self._metrics_at = now + METRICS_EVERY
        # Counting all nodes again is most of what an idle process does: only after a change.
        known = (self.planner.revision, self._leading)
        if known != self._published:
            self._published = known
            self._publish_nodes()
        self._publish_policies()
        publish(self.metrics.limits, {(limit,): count for limit, count in limited_by.items()})
        causes = self.draining.blocked_causes(now)
        publish(self.metrics.blocked, {(cause,): count for cause, count in causes.items()})
        drains = [run.drain for run in self.draining.running.values() if not run.drain.after]
        self.metrics.draining.set(len(drains))
        oldest = min((drain.started for drain in drains), default=now)
        self.metrics.oldest_drain.set(max(0.0, now - oldest))


def _time_text(moment: float) -> str:
    return "its first start is known" if moment == float("inf") else observe_first.text_of(moment)


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
