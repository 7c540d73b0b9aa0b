"""The main loop: one thread that owns all state, fed by watches, timers and answers.

Everything that changes state arrives as a job in one inbox. Blocking requests run in worker
threads and report back through the inbox.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from selfheal_remediator.config import Config
from selfheal_remediator.controller.inbox import Clock, Inbox
from selfheal_remediator.controller.leadership import Leadership
from selfheal_remediator.controller.parts import Identity, assemble
from selfheal_remediator.controller.status_publisher import StatusPublisher
from selfheal_remediator.controller.tick import LONGEST_SLEEP, Tick
from selfheal_remediator.drain.runner import Draining
from selfheal_remediator.healing.progress_probe import Fetch, fetch
from selfheal_remediator.healing.runner import Healer
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.election import Leader
from selfheal_remediator.kube.events import EventWriter
from selfheal_remediator.metrics import Metrics
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.threads.pool import Job
from selfheal_remediator.threads.runtime import REAL, Runtime

STUCK_AFTER = 60.0

LeaderOf = Callable[[Callable[[bool], None], Callable[[Mapping[str, str]], None]], Leader]


class Remediator:
    """Starts, runs and ends the parts. `run` is the main thread; all else is for any thread."""

    def __init__(
        self,
        config: Config,
        api: KubernetesApi,
        leader_of: LeaderOf,
        events: EventWriter,
        metrics: Metrics,
        identity: Identity,
        clock: Callable[[], float] | None = None,
        *,
        fetch: Fetch = fetch,
        runtime: Runtime = REAL,
    ) -> None:
        self.clock, self._monotonic = clock or Clock(runtime=runtime), runtime.monotonic
        self._inbox = Inbox(runtime=runtime)
        self._stop = runtime.event()
        self.leader = leader_of(self._leads, self._lease_changed)
        self.parts = assemble(
            config,
            api,
            self.leader,
            events,
            metrics,
            identity,
            self._inbox.post,
            self.clock,
            self._stop,
            fetch=fetch,
            runtime=runtime,
        )
        self.leadership = Leadership(self.parts, self.clock)
        self.status = StatusPublisher(self.parts, self.leader, self.clock())
        self._tick = Tick(self.parts, self.leadership, self.leader, self.status, self.clock)
        api.fence = self._fence
        self.leader.unfit = self._unfit
        self.leader.on_blocked = self._lease_blocked
        self.leader.record.on_gap = self._lease_gap
        self.last_tick = self._monotonic()
        metrics.api.watch_age("nodes", self.parts.nodes.age)
        rules = self.parts.mode.config.all_rules
        metrics.nodes.may_cordon(rule.condition for rule in rules if rule.cordons)
        metrics.repairs.may_repair(rules)

    # -- parts ---------------------------------------------------------------------------

    @property
    def config(self) -> Config:
        """What is acted by: dryRun while it only observes."""
        return self.parts.mode.config

    @property
    def metrics(self) -> Metrics:
        """What is published."""
        return self.parts.metrics

    @property
    def planner(self) -> Planner:
        """What is known of nodes."""
        return self.parts.planner

    @property
    def draining(self) -> Draining:
        """The drains under way."""
        return self.parts.drains.draining

    @property
    def healer(self) -> Healer:
        """Pod healing."""
        return self.parts.pods.healer

    @property
    def synced(self) -> bool:
        """Whether all nodes were listed in this term of leadership."""
        return self.parts.nodes.synced

    @property
    def known_once(self) -> bool:
        """Whether all nodes were ever listed."""
        return self.parts.nodes.known_once

    # -- life ----------------------------------------------------------------------------

    def post(self, job: Job) -> None:
        """Have the main loop run this next."""
        self._inbox.post(job)

    def healthy(self) -> str:
        """What is wrong with this process, empty = nothing (never the API server's absence)."""
        age = self._monotonic() - self.last_tick
        if age > STUCK_AFTER:
            return f"the main loop has not ticked for {age:.0f}s"
        age = self._monotonic() - self.leader.last_tick
        if age > STUCK_AFTER:
            return f"the lease thread has not ticked for {age:.0f}s"
        return ""

    def ready(self) -> str:
        """What is missing before this process can do its work, empty = nothing."""
        return self._unfit() if self.known_once else "the nodes are not known yet"

    def reconfigure(self, config: Config) -> None:
        """Use another configuration from now on."""
        self.post(partial(self.leadership.reconfigure, config))

    def stop(self) -> None:
        """End soon; callable also from a signal handler."""
        self._stop.set()
        self._inbox.wake()

    def run(self) -> None:
        """Work until `stop` is called, then let go of the Lease."""
        parts = self.parts
        parts.events.start()
        parts.nodes.informer.start()
        self.leader.start()
        wake = self.clock()
        while not self._stop.is_set():
            self._inbox.run_jobs(min(max(0.0, wake - self.clock()), LONGEST_SLEEP))
            self.last_tick = self._monotonic()
            wake = self._tick.run()
        self.leader.close()
        self.healer.end()
        self.draining.end_all()
        parts.restoring.end()
        parts.nodes.informer.end_watch()
        parts.events.close(2.0)

    # -- called in other threads -----------------------------------------------------------

    def _leads(self, leading: bool) -> None:
        """In the thread `lease`."""
        self.post(partial(self.leadership.lead, leading))

    def _lease_blocked(self, text: str) -> None:
        """In the thread `lease`."""
        self.post(partial(self.leadership.blocked, text))

    def _lease_changed(self, annotations: Mapping[str, str]) -> None:
        """In the thread `lease-watch`."""
        self.post(partial(self.leadership.lease_changed, annotations))

    def _lease_gap(self) -> None:
        """In the thread `lease-watch`, or `lease`."""
        self.post(self.leadership.may_have_been_paused)

    def _unfit(self) -> str:
        """Why this process could not do a leader's work, empty = it can."""
        return self.parts.nodes.silent()

    def _fence(self) -> object:
        """Before each write: raises NotLeader, and differs after all was stopped meanwhile."""
        return self.leader.fence(), self.parts.authority.stops
