"""The remediator's metrics. Labels are bounded; only cordoned nodes appear by name, up to NAMED."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import product

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.process_collector import ProcessCollector

from selfheal_remediator.config import Rule
from selfheal_remediator.healing.pod_health import Cause
from selfheal_remediator.kube.responses import Outcome
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.restore.drift import FIELDS
from selfheal_remediator.restore.errand import Outcome as RestoreOutcome
from selfheal_remediator.threads import supervision
from selfheal_remediator.threads.runtime import REAL, Runtime

_PREFIX = "selfheal_remediator_"
# Few buckets: all series of a process together are to stay under 330.
_LATENCY = (0.005, 0.025, 0.1, 0.5, 2.5, 10, 30)
_WAITS = (1, 15, 60, 300, 1800)  # once for each condition that leads to a cordon
_DRAINS = (1, 15, 60, 300, 900, 1800, 3600, 14400)
#: Maximum of cordoned nodes that appear by name, one series each.
NAMED = 20
ACTION_RESULTS = ("done", "overtaken", "conflict", "failed")
DRAIN_RESULTS = ("succeeded", "no-room")
STEP_RESULTS = ("succeeded", "failed")
EVENT_RESULTS = ("written", "refused", "failed", "dropped")
#: Causes of restarts of pods, and causes for which a restart is refused.
RESTART_CAUSES = tuple(cause.value for cause in Cause if cause.value)
REFUSED_CAUSES = (
    *("not-leader", "owner-gone", "rollout", "scale-in", "dry-run", "not-deleted"),
    *(outcome.value for outcome in Outcome if outcome is not Outcome.ACCEPTED),
)


class _Family:
    """Makes metrics in a registry. Names get the prefix, and labels and help texts are given.

    registry: None = they are not published.
    """

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._registry = registry

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, text, labels, registry=self._registry)

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(_PREFIX + name, text, labels, registry=self._registry)

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(_PREFIX + name, text, labels, registry=self._registry, buckets=buckets)


class NodeMetrics:
    """Nodes, and what the rules make of them."""

    def __init__(self, family: _Family) -> None:
        self.states = family.gauge("nodes", "Nodes by their state", "state")
        self.cordoned = family.gauge(
            "cordoned_nodes", "Nodes cordoned by the remediator, by phase", "phase"
        )
        self.cordoned_info = family.gauge(
            "cordoned_node_info",
            f"1 for each node cordoned now, up to the {NAMED} cordoned longest",
            "cordoned_node",
            "condition",
            "phase",
        )
        self.actions = family.counter(
            "actions", "Changes of nodes by action and result", "action", "result"
        )
        self.to_cordon = family.histogram(
            "condition_to_cordon_seconds",
            "From the first observation of the condition to the cordon",
            _WAITS,
            "condition",
        )
        self.late = family.histogram(
            "action_delay_seconds", "From the end of a rule's duration to the cordon", _LATENCY
        )
        self.limited = family.gauge("limited_nodes", "Nodes that wait for a limit", "limit")
        self.rejected = family.gauge(
            "signal_rejected_nodes", "Nodes with a bad condition that is ignored", "cause"
        )
        #: Conditions that have series; the series are removed with them.
        self._conditions: frozenset[str] = frozenset()
        for kind, result in product(Kind, ACTION_RESULTS):
            self.actions.labels(kind.value, result)

    def may_cordon(self, conditions: Iterable[str]) -> None:
        """Set the conditions that lead to a cordon by the rules: each is counted from zero."""
        wanted = frozenset(conditions)
        for condition in self._conditions - wanted:
            self.to_cordon.remove(condition)
        for condition in wanted:
            self.to_cordon.labels(condition)
        self._conditions = wanted

    def count_cordon(self, condition: str, seconds: float) -> None:
        """Count a cordon, unless the condition's rule was removed meanwhile."""
        if condition in self._conditions:
            self.to_cordon.labels(condition).observe(seconds)


class DrainMetrics:
    """Drains and their evictions."""

    def __init__(self, family: _Family) -> None:
        self.durations = family.histogram(
            "drain_duration_seconds", "From the start of a drain to its end", _DRAINS, "result"
        )
        self.running = family.gauge("draining_nodes", "Nodes being drained now")
        self.oldest = family.gauge(
            "oldest_drain_seconds", "Age of the oldest unfinished drain, 0 = none"
        )
        self.evictions = family.counter("evictions", "Eviction requests by outcome", "outcome")
        self.blocked = family.gauge(
            "drain_blocked_pods", "Pods that a drain waits for, by cause", "cause"
        )
        for result in DRAIN_RESULTS:
            self.durations.labels(result)
        for outcome in Outcome:
            self.evictions.labels(outcome.value)


class HealingMetrics:
    """HealingPolicies and the restarts of their pods."""

    def __init__(self, family: _Family) -> None:
        self.pods = family.gauge(
            "policy_pods",
            "Pods of a HealingPolicy: desired by their owners, and healthy",
            "policy",
            "state",
        )
        self.states = family.gauge(
            "policy_state", "1 for the state that a HealingPolicy is in", "policy", "state"
        )
        self.rollouts_stuck = family.gauge(
            "policy_rollouts_stuck",
            "Owners of a HealingPolicy's pods whose rollout is stuck",
            "policy",
        )
        self.restarts = family.counter(
            "healing_restarts", "Pods restarted by a HealingPolicy, by cause", "policy", "cause"
        )
        self.refused = family.counter(
            "healing_refused", "Restarts of pods that were refused, by cause", "cause"
        )
        self.probes = family.counter(
            "progress_probes", "Progress probes of pods, by result", "result"
        )
        #: Policies that have series; the series are removed with them.
        self._policies: set[str] = set()
        for cause in REFUSED_CAUSES:
            self.refused.labels(cause)

    def set_policies(self, policies: Iterable[str], *, complete: bool) -> None:
        """The restarts under these HealingPolicies are counted from zero; complete: no other
        policy exists, so the series of all others end."""
        wanted = set(policies)
        for policy in wanted:
            self._count_restarts_of(policy)
        for policy in self._policies - wanted if complete else ():
            self.forget_policy(policy)

    def forget_policy(self, policy: str) -> None:
        """Remove the counters of a deleted HealingPolicy; gauges are set at each evaluation."""
        if policy in self._policies:
            self._policies.discard(policy)
            for cause in RESTART_CAUSES:
                self.restarts.remove(policy, cause)

    def count_restart(self, policy: str, cause: str) -> None:
        """Count a restart of a pod under this HealingPolicy, which exists."""
        self._count_restarts_of(policy)
        self.restarts.labels(policy, cause).inc()

    def _count_restarts_of(self, policy: str) -> None:
        if policy in self._policies:
            return
        self._policies.add(policy)
        for cause in RESTART_CAUSES:
            self.restarts.labels(policy, cause)


class RepairMetrics:
    """What follows drains."""

    def __init__(self, family: _Family) -> None:
        self.steps = family.counter(
            "repair_steps", "Steps after drains that ended, by kind and result", "kind", "result"
        )

    def may_repair(self, rules: Iterable[Rule]) -> None:
        """Each kind of step that the rules have is counted from zero."""
        for rule in rules:
            kinds = [step.kind for step in rule.then] + ["verify"] * (rule.verify is not None)
            for kind, result in product(kinds, STEP_RESULTS):
                self.steps.labels(kind, result)


class RestoreMetrics:
    """Objects of the release that were deleted or changed by hand."""

    def __init__(self, family: _Family) -> None:
        self.missing = family.gauge(
            "restore_missing_objects", "Objects of the release that are missing"
        )
        self.drifted = family.gauge(
            "restore_drifted_objects", "Deployments that differ from the release, by field", "field"
        )
        self.results = family.counter(
            "restores", "Objects of the release made again or corrected, by result", "result"
        )
        for field in FIELDS:
            self.drifted.labels(field)
        for outcome in RestoreOutcome:
            self.results.labels(outcome.value)

    def count(self, task: str, result: str) -> None:
        """Count one action of these two kinds by what became of it."""
        if task in ("restore", "correct"):
            self.results.labels(result).inc()

    def set_state(self, missing: int, drifted: Mapping[str, int]) -> None:
        """How many objects are missing, and how many differ by each field."""
        self.missing.set(missing)
        for field in FIELDS:
            self.drifted.labels(field).set(drifted.get(field, 0))


class ApiMetrics:
    """Requests to the API server, and what is read and written by them."""

    def __init__(self, family: _Family) -> None:
        self._family = family
        self.relists = family.counter("watch_relists", "Complete lists of a watch", "watch")
        self.requests = family.counter(
            "api_requests", "Requests to the API server (code 0: no answer)", "verb", "code"
        )
        self.request_time = family.histogram(
            "api_request_duration_seconds", "Duration of requests", _LATENCY, "verb"
        )
        self.events = family.counter("events", "Kubernetes Events by result", "result")
        for result in EVENT_RESULTS:
            self.events.labels(result)

    def watch_age(self, name: str, age: Callable[[], float]) -> None:
        """Publish the seconds since the last sign of life of a watch."""
        self._family.gauge(
            f"{name}_watch_age_seconds",
            f"Seconds since the last sign of life of the watch of {name}",
        ).set_function(age)

    def count_event(self, result: str) -> None:
        """Count one Event by what became of it."""
        self.events.labels(result).inc()

    def count_request(self, verb: str, code: int, seconds: float) -> None:
        """Count one answer of the API server."""
        self.requests.labels(verb, str(code)).inc()
        self.request_time.labels(verb).observe(seconds)


class ControllerMetrics:
    """Whether this process acts, and whether it works."""

    def __init__(self, family: _Family, runtime: Runtime) -> None:
        self._runtime = runtime
        self.leader = family.gauge("leader", "1 while this process is the leader")
        self.paused = family.gauge(
            "paused", "1 while remediation is paused, or only observes at first"
        )
        self.read_only = family.gauge("read_only", "1 while an older remediator acts")
        self.config_ok = family.gauge(
            "config_last_reload_successful", "0 if the configuration file is invalid"
        )
        self.thread_failures = family.counter(
            "thread_failures", "Unexpected exceptions in threads, which continued"
        )
        self.reconciled = family.gauge(
            "last_reconcile_timestamp_seconds",
            "When the plan was last made; before the first, when the process began",
        )
        self._thread_failures_seen = 0
        self.reconciled.set(self._runtime.time())
        self.config_ok.set(1)

    def note_plan(self) -> None:
        """The plan was made."""
        self.reconciled.set(self._runtime.time())

    def count_thread_failures(self) -> None:
        """Take in those since the last call."""
        count = sum(supervision.failures(self._runtime).values())
        self.thread_failures.inc(max(0, count - self._thread_failures_seen))
        self._thread_failures_seen = count


class Metrics:
    """All metrics of the remediator in a registry of their own, by subject.

    Counters begin at zero: for one that appears later Prometheus computes no increase.
    restores: whether the metrics of restoring are published.
    """

    def __init__(self, *, restores: bool = False, runtime: Runtime = REAL) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        family = _Family(self.registry)
        self.nodes = NodeMetrics(family)
        self.drains = DrainMetrics(family)
        self.repairs = RepairMetrics(family)
        self.healing = HealingMetrics(family)
        self.restore = RestoreMetrics(family if restores else _Family(None))
        self.api = ApiMetrics(family)
        self.controller = ControllerMetrics(family, runtime)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        self.controller.count_thread_failures()
        return generate_latest(self.registry)


def publish(gauge: Gauge, values: Mapping[tuple[str, ...], float]) -> None:
    """Set a gauge to exactly these label values; all others are removed.

    A series that stays is never missing in between, because Prometheus may read at any moment.
    """
    before = {
        tuple(sample.labels.values()) for family in gauge.collect() for sample in family.samples
    }
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
    for gone in before - set(values):
        gauge.remove(*gone)


def named(cordoned: Mapping[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    """1 for each of the NAMED cordoned longest; `cordoned` has their start times, by labels."""
    first = sorted(cordoned, key=lambda labels: (cordoned[labels], labels))[:NAMED]
    return dict.fromkeys(first, 1.0)
