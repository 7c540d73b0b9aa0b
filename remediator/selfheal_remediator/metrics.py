"""What Prometheus can ask. Labels are bounded; only nodes that are held appear by name, and few."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.process_collector import ProcessCollector

from selfheal_remediator.healing.pod_health import Cause
from selfheal_remediator.kube.responses import Outcome
from selfheal_remediator.node.evaluate import Kind
from selfheal_remediator.threads import supervision

# Few buckets: all series of a process together are to stay under 300.
_LATENCY = (0.005, 0.025, 0.1, 0.5, 2.5, 10, 30)
_WAITS = (1, 15, 60, 300, 1800)  # once for each condition that leads to a cordon
_DRAINS = (1, 15, 60, 300, 900, 1800, 3600, 14400)
#: Cordoned by the remediator that are named: one series each.
NAMED = 20
ACTION_RESULTS = ("done", "overtaken", "conflict", "failed")
DRAIN_RESULTS = ("succeeded", "no-room")
EVENT_RESULTS = ("written", "refused", "failed", "dropped")
#: What is wrong with pods that are restarted, and why an asked restart is not made.
RESTART_CAUSES = tuple(cause.value for cause in Cause if cause.value)
REFUSED_CAUSES = (
    *("not-leader", "owner-gone", "rollout", "scale-in", "dry-run", "not-deleted"),
    *(outcome.value for outcome in Outcome if outcome is not Outcome.ACCEPTED),
)


class Metrics:
    """All metrics of the remediator in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.nodes = self._gauge("nodes", "Nodes by what they call for", ["state"])
        self.cordoned_nodes = self._gauge(
            "cordoned_nodes", "Nodes cordoned out of service by us", ["phase"]
        )
        self.cordoned_node_info = self._gauge(
            "cordoned_node_info",
            f"1 for each node cordoned now, of more than {NAMED} those held longest",
            ["node", "condition", "phase"],
        )
        self.actions = self._counter(
            "actions", "Changes of nodes by action and result", ["action", "result"]
        )
        self.to_cordon = self._histogram(
            "condition_to_cordon_seconds",
            "From the condition first seen to the node cordoned",
            _WAITS,
            ["condition"],
        )
        self.late = self._histogram(
            "action_delay_seconds",
            "From the moment a rule's duration was over to the node cordoned",
            _LATENCY,
            [],
        )
        self.drains = self._histogram(
            "drain_duration_seconds", "From the start of a drain to its end", _DRAINS, ["result"]
        )
        self.draining = self._gauge("draining_nodes", "Nodes being drained now", [])
        self.oldest_drain = self._gauge(
            "oldest_drain_seconds", "Age of the oldest unfinished drain, 0 = none", []
        )
        self.evictions = self._counter("evictions", "Eviction requests by outcome", ["outcome"])
        self.blocked = self._gauge(
            "drain_blocked_pods", "Pods that a drain waits for, by cause", ["cause"]
        )
        self.limits = self._gauge("limited_nodes", "Nodes that wait for a limit", ["limit"])
        self.rejected = self._gauge(
            "signal_rejected_nodes", "Nodes with a bad condition that is not believed", ["cause"]
        )
        self.leader = self._gauge("leader", "1 while this process holds the Lease", [])
        self.paused = self._gauge(
            "paused", "1 while remediation is paused, or only observes at first", []
        )
        self.read_only = self._gauge("read_only", "1 while another remediator comes first", [])
        self.config_ok = self._gauge(
            "config_last_reload_successful", "0 when the configuration file cannot be used", []
        )
        self.policy_pods = self._gauge(
            "policy_pods",
            "Pods of a HealingPolicy: wanted by their owners, and healthy",
            ["policy", "state"],
        )
        self.policy_state = self._gauge(
            "policy_state",
            "1 for the state that a HealingPolicy is in",
            ["policy", "state"],
        )
        self.policy_rollouts_stuck = self._gauge(
            "policy_rollouts_stuck",
            "Owners of a HealingPolicy's pods whose roll-out has stopped",
            ["policy"],
        )
        self.healing_restarts = self._counter(
            "healing_restarts",
            "Pods restarted under a HealingPolicy, by what was wrong",
            ["policy", "cause"],
        )
        self.healing_refused = self._counter(
            "healing_refused", "Restarts of pods that could not be made, by why", ["cause"]
        )
        self.progress_probes = self._counter(
            "progress_probes", "Pods asked how their work goes, by result", ["result"]
        )
        self.relists = self._counter("watch_relists", "Complete lists of a watch", ["watch"])
        self.requests = self._counter(
            "api_requests", "Requests to the API server (code 0: no answer)", ["verb", "code"]
        )
        self.request_time = self._histogram(
            "api_request_duration_seconds", "Duration of requests", _LATENCY, ["verb"]
        )
        self.events = self._counter("events", "Kubernetes Events by result", ["result"])
        self.thread_failures = self._counter(
            "thread_failures", "Unexpected exceptions in threads, which went on after them", []
        )
        self._thread_failures_seen = 0
        #: What has series of its own now; the series end with it.
        self._conditions: frozenset[str] = frozenset()
        self._policies: set[str] = set()
        self.reconciled = self._gauge(
            "last_reconcile_timestamp_seconds",
            "When the plan was last made; before the first, when the process began",
            [],
        )
        self.reconciled.set(time.time())
        self.config_ok.set(1)
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Of a counter that appears with its first event, Prometheus sees no increase."""
        for kind in Kind:
            for result in ACTION_RESULTS:
                self.actions.labels(kind.value, result)
        for result in DRAIN_RESULTS:
            self.drains.labels(result)
        for outcome in Outcome:
            self.evictions.labels(outcome.value)
        for result in EVENT_RESULTS:
            self.events.labels(result)
        for cause in REFUSED_CAUSES:
            self.healing_refused.labels(cause)

    def may_cordon(self, conditions: Iterable[str]) -> None:
        """Exactly these conditions lead to a cordon by the rules: each is counted from zero."""
        wanted = frozenset(conditions)
        for condition in self._conditions - wanted:
            self.to_cordon.remove(condition)
        for condition in wanted:
            self.to_cordon.labels(condition)
        self._conditions = wanted

    def cordoned(self, condition: str, seconds: float) -> None:
        """A node was cordoned; of a condition whose rule was removed meanwhile nothing is kept."""
        if condition in self._conditions:
            self.to_cordon.labels(condition).observe(seconds)

    def look_after(self, policies: Iterable[str], *, complete: bool) -> None:
        """The restarts under these HealingPolicies are counted from zero; complete: no other
        policy exists, so the series of all others end."""
        wanted = set(policies)
        for policy in wanted:
            self._count_restarts_of(policy)
        for policy in self._policies - wanted if complete else ():
            self.forget_policy(policy)

    def forget_policy(self, policy: str) -> None:
        """The HealingPolicy was deleted: its counters end (the gauges are set anew each time)."""
        if policy in self._policies:
            self._policies.discard(policy)
            for cause in RESTART_CAUSES:
                self.healing_restarts.remove(policy, cause)

    def restarted(self, policy: str, cause: str) -> None:
        """A pod was restarted under this HealingPolicy, which exists."""
        self._count_restarts_of(policy)
        self.healing_restarts.labels(policy, cause).inc()

    def _count_restarts_of(self, policy: str) -> None:
        if policy in self._policies:
            return
        self._policies.add(policy)
        for cause in RESTART_CAUSES:
            self.healing_restarts.labels(policy, cause)

    def watch_age(self, name: str, age: Callable[[], float]) -> None:
        """Publish the seconds since a watch gave its last sign of life."""
        gauge = Gauge(
            f"selfheal_remediator_{name}_watch_age_seconds",
            f"Seconds since the last sign of life of the watch of {name}",
            registry=self.registry,
        )
        gauge.set_function(age)

    def request(self, verb: str, code: int, seconds: float) -> None:
        """Count one answer of the API server."""
        self.requests.labels(verb, str(code)).inc()
        self.request_time.labels(verb).observe(seconds)

    def tick(self) -> None:
        """The plan was made."""
        self.reconciled.set(time.time())

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        count = sum(supervision.failures().values())
        self.thread_failures.inc(max(0, count - self._thread_failures_seen))
        self._thread_failures_seen = count
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, labels: list[str]) -> Gauge:
        return Gauge(f"selfheal_remediator_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"selfheal_remediator_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...], labels: list[str]
    ) -> Histogram:
        return Histogram(
            f"selfheal_remediator_{name}", text, labels, registry=self.registry, buckets=buckets
        )


def publish(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
    """Set a gauge to exactly these label values; those that went are removed.

    A series that stays is never away in between: Prometheus may read at any moment.
    """
    before = {
        tuple(sample.labels.values()) for family in gauge.collect() for sample in family.samples
    }
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
    for gone in before - set(values):
        gauge.remove(*gone)


def named(cordoned: Mapping[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """1 for each of the NAMED cordoned longest; `cordoned` says since when, by labels."""
    first = sorted(cordoned, key=lambda labels: (cordoned[labels], labels))[:NAMED]
    return dict.fromkeys(first, 1.0)
