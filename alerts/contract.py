"""Every metric that alerts and dashboards may name: ours from the code, foreign ones by a list.

Ours are read off the registries of worker and remediator, so that a renamed metric is a failing
test and not an empty panel. Foreign ones carry the exporter and the version they were looked up in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Metric

from alerts.rules import ALERTS
from selfheal_remediator.healing.policy import State
from selfheal_remediator.kube.responses import Outcome
from selfheal_remediator.ladder import STEP_KINDS
from selfheal_remediator.metrics import (
    ACTION_RESULTS,
    DRAIN_RESULTS,
    EVENT_RESULTS,
    REFUSED_CAUSES,
    RESTART_CAUSES,
    STEP_RESULTS,
)
from selfheal_remediator.metrics import Metrics as RemediatorMetrics
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.annotation import Phase
from selfheal_remediator.restore.drift import FIELDS as DRIFT_FIELDS
from selfheal_remediator.restore.errand import Outcome as RestoreOutcome
from selfheal_worker.metrics import (
    BREAKERS,
    DEAD_LETTER_REASONS,
    ERROR_TYPES,
    MOST_VERSIONS,
    OPERATIONS,
    OTHER_VERSION,
    OUTCOMES,
)
from selfheal_worker.metrics import Metrics as WorkerMetrics

#: Labels that Prometheus adds to each series of a pod, by the chart's PodMonitors.
TARGET_LABELS = frozenset(
    {"namespace", "pod", "container", "job", "instance", "endpoint", "cluster", "node"}
)
#: Labels that series have beside those of the metric, by what adds them. A metric's own label of
#: such a name is renamed to `exported_…`, or with honor_labels replaces the target's: no metric of
#: ours has one. A `node` of ours would be read as the node of the remediator's own pod.
ADDED_LABELS: Mapping[str, tuple[str, ...]] = {
    "Prometheus itself": ("job", "instance"),
    "Prometheus Operator: pkg/prometheus/promcfg.go, for PodMonitors and ServiceMonitors": (
        *("namespace", "pod", "container", "service", "node", "endpoint", "job"),
        *("prometheus", "prometheus_replica"),
    ),
    "Grafana Alloy: prometheus.operator.podmonitors; Grafana's chart k8s-monitoring": (
        *("namespace", "pod", "container", "endpoint", "job", "instance", "cluster"),
    ),
    "the chart prometheus-community/prometheus: jobs kubernetes-pods, …-service-endpoints": (
        *("namespace", "pod", "service", "node"),
    ),
    "labels of pods, which these jobs copy: examples of Kubernetes' documentation": (
        *("app", "release", "environment", "tier", "partition", "track", "version", "component"),
        *("app_kubernetes_io_name", "app_kubernetes_io_instance", "app_kubernetes_io_version"),
        *("app_kubernetes_io_component", "app_kubernetes_io_part_of", "pod_template_hash"),
    ),
    "older examples of Prometheus, and other charts": (
        *("kubernetes_namespace", "kubernetes_pod_name", "kubernetes_name", "kubernetes_node"),
        *("node_name", "pod_name", "container_name", "host", "hostname", "region", "zone"),
    ),
    "Google Managed Service for Prometheus: pkg/operator/apis/monitoring/v1/pod_config.go": (
        *("project_id", "location", "cluster", "namespace", "job", "instance"),
        *("container", "node", "pod", "top_level_controller_name", "top_level_controller_type"),
    ),
    "OpenTelemetry Collector: prometheusreceiver, k8sattributesprocessor, as labels": (
        *("service_name", "service_namespace", "service_instance_id", "server_address"),
        *("server_port", "url_scheme", "otel_scope_name", "otel_scope_version"),
        *("k8s_namespace_name", "k8s_pod_name", "k8s_pod_uid", "k8s_deployment_name"),
        *("k8s_node_name", "k8s_container_name", "k8s_cluster_name"),
    ),
    "the alerts of this chart, over those of their series": (
        *("alertname", "alertstate", "severity", "team", "namespace", "release"),
    ),
}
_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
#: Units that a name may end in; everything else counts things.
_UNITS = ("seconds", "bytes")
_MODEL = "the name that the provider was configured with"
_VERSION = (
    "the version that the provider reports, such as a digest's beginning; "
    f"{OTHER_VERSION} after the first {MOST_VERSIONS} of a model"
)
_CONDITION = "a condition type of the configured rules"
_POLICY = "a HealingPolicy, as `namespace/name`"
_STANDINGS = (
    *(
        "new",
        "ok",
        "seen",
        "noted",
        "wants-cordon",
        "healed",
        "uncordoning",
        "cancelled",
        "excluded",
    ),
    *("foreign", "foreign-cordon", "foreign-mark", "cordoned-foreign", "not-selected", "deleting"),
    *("unreadable", *(phase.value for phase in Phase if phase.cordoned)),
)
#: The values of each of our labels, or, if the cluster defines them, their source.
LABELS: Mapping[tuple[str, str], tuple[str, ...] | str] = {
    ("selfheal_worker_messages", "outcome"): OUTCOMES,
    ("selfheal_worker_dead_letters", "reason"): DEAD_LETTER_REASONS,
    ("selfheal_worker_breaker_state", "breaker"): BREAKERS,
    ("gen_ai_client_operation_duration_seconds", "gen_ai_operation_name"): OPERATIONS,
    ("gen_ai_client_operation_duration_seconds", "gen_ai_provider_name"): "the model's provider",
    ("gen_ai_client_operation_duration_seconds", "gen_ai_request_model"): _MODEL,
    ("gen_ai_client_operation_duration_seconds", "model_version"): _VERSION,
    ("gen_ai_client_operation_duration_seconds", "error_type"): (
        f"empty when the call went well, else {', '.join(ERROR_TYPES)}"
    ),
    ("gen_ai_client_token_usage", "gen_ai_operation_name"): OPERATIONS,
    ("gen_ai_client_token_usage", "gen_ai_provider_name"): "the model's provider",
    ("gen_ai_client_token_usage", "gen_ai_request_model"): _MODEL,
    ("gen_ai_client_token_usage", "model_version"): _VERSION,
    ("gen_ai_client_token_usage", "gen_ai_token_type"): ("input", "output"),
    ("selfheal_worker_model_load_seconds", "gen_ai_provider_name"): "the model's provider",
    ("selfheal_worker_model_load_seconds", "gen_ai_request_model"): _MODEL,
    ("selfheal_worker_model_load_seconds", "model_version"): _VERSION,
    **{
        (f"selfheal_worker_model_calls_{what}", label): whose
        for what in ("allowed", "running")
        for label, whose in (
            ("gen_ai_provider_name", "the model's provider"),
            ("gen_ai_request_model", _MODEL),
        )
    },
    ("selfheal_remediator_restore_drifted_objects", "field"): DRIFT_FIELDS,
    ("selfheal_remediator_restores", "result"): tuple(outcome.value for outcome in RestoreOutcome),
    ("selfheal_remediator_nodes", "state"): _STANDINGS,
    ("selfheal_remediator_cordoned_nodes", "phase"): tuple(p.value for p in Phase if p.cordoned),
    ("selfheal_remediator_cordoned_node_info", "cordoned_node"): "a node that is cordoned now",
    ("selfheal_remediator_cordoned_node_info", "condition"): _CONDITION,
    ("selfheal_remediator_cordoned_node_info", "phase"): tuple(
        p.value for p in Phase if p.cordoned
    ),
    ("selfheal_remediator_actions", "action"): tuple(kind.value for kind in Kind),
    ("selfheal_remediator_actions", "result"): ACTION_RESULTS,
    ("selfheal_remediator_condition_to_cordon_seconds", "condition"): _CONDITION,
    ("selfheal_remediator_drain_duration_seconds", "result"): DRAIN_RESULTS,
    ("selfheal_remediator_repair_steps", "kind"): (*STEP_KINDS, "verify"),
    ("selfheal_remediator_repair_steps", "result"): STEP_RESULTS,
    ("selfheal_remediator_evictions", "outcome"): tuple(outcome.value for outcome in Outcome),
    ("selfheal_remediator_drain_blocked_pods", "cause"): (
        *(o.value for o in Outcome if not o.over and o is not Outcome.PROCESSING),
        *("terminating", "not-deleted"),
    ),
    ("selfheal_remediator_limited_nodes", "limit"): (
        *(
            "maxUnavailable",
            "unavailable",
            "controlPlane",
            "zone",
            "minInterval",
            "rate",
            "maxDraining",
            "maxRepairing",
        ),
        *("signal", "paused", "controlPlaneUnhealthy", "zoneOutage", "group"),
    ),
    ("selfheal_remediator_signal_rejected_nodes", "cause"): (
        "stale-heartbeat",
        "suspected-detector",
    ),
    ("selfheal_remediator_policy_pods", "policy"): _POLICY,
    ("selfheal_remediator_policy_pods", "state"): ("desired", "healthy"),
    ("selfheal_remediator_policy_state", "policy"): _POLICY,
    ("selfheal_remediator_policy_rollouts_stuck", "policy"): _POLICY,
    ("selfheal_remediator_policy_state", "state"): tuple(state.value for state in State),
    ("selfheal_remediator_healing_restarts", "policy"): _POLICY,
    ("selfheal_remediator_healing_restarts", "cause"): RESTART_CAUSES,
    ("selfheal_remediator_healing_refused", "cause"): REFUSED_CAUSES,
    ("selfheal_remediator_progress_probes", "result"): ("answered", "silent"),
    ("selfheal_remediator_watch_relists", "watch"): ("nodes",),
    ("selfheal_remediator_api_requests", "verb"): ("GET", "POST", "PATCH", "DELETE", "WATCH"),
    ("selfheal_remediator_api_requests", "code"): "the HTTP status, 0 = no answer",
    ("selfheal_remediator_api_request_duration_seconds", "verb"): (
        *("GET", "POST", "PATCH", "DELETE", "WATCH"),
    ),
    ("selfheal_remediator_events", "result"): EVENT_RESULTS,
}


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: `name` without suffixes, its series' names, its labels beside the target's."""

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def series(self) -> tuple[str, ...]:
        """What PromQL calls it."""
        return tuple(f"{self.name}{suffix}" for suffix in _SUFFIXES.get(self.kind, ("",)))


@dataclass(frozen=True, slots=True)
class Foreign:
    """Metrics of one exporter: name of the series → labels beside the target's."""

    exporter: str
    metrics: Mapping[str, tuple[str, ...]]


_KEDA = ("namespace", "exported_namespace", "metric", "scaledObject", "scaler", "triggerIndex")
_POD = ("namespace", "pod", "container", "uid", "node")
FOREIGN = (
    Foreign(
        "KEDA operator 2.20.2",
        {
            "keda_scaler_metrics_value": _KEDA,
            "keda_scaler_active": _KEDA,
            "keda_scaler_detail_errors_total": _KEDA,
            "keda_scaled_object_paused": ("namespace", "exported_namespace", "scaledObject"),
        },
    ),
    Foreign(
        "RabbitMQ 4.0.5, /metrics/detailed (families queue_coarse_metrics, queue_consumer_count)",
        {
            "rabbitmq_detailed_queue_messages_ready": ("vhost", "queue"),
            "rabbitmq_detailed_queue_messages_unacked": ("vhost", "queue"),
            "rabbitmq_detailed_queue_consumers": ("vhost", "queue"),
        },
    ),
    Foreign(
        "RabbitMQ 4.0.5, /metrics",
        {
            "rabbitmq_disk_space_available_bytes": (),
            "rabbitmq_disk_space_available_limit_bytes": (),
        },
    ),
    Foreign(
        "kube-state-metrics 2.20.0",
        {
            "kube_pod_container_status_restarts_total": _POD,
            "kube_pod_container_status_last_terminated_reason": (*_POD, "reason"),
            "kube_pod_container_resource_requests": (*_POD, "resource", "unit"),
            "kube_pod_container_resource_limits": (*_POD, "resource", "unit"),
            "kube_pod_status_unschedulable": _POD,
            "kube_pod_status_phase": (*_POD, "phase"),
            "kube_pod_info": _POD,
            "kube_deployment_spec_replicas": ("namespace", "deployment"),
            "kube_deployment_status_replicas_ready": ("namespace", "deployment"),
            "kube_deployment_metadata_generation": ("namespace", "deployment"),
            "kube_deployment_status_condition": ("namespace", "deployment", "condition", "status"),
            "kube_statefulset_status_replicas_ready": ("namespace", "statefulset"),
            "kube_horizontalpodautoscaler_status_condition": (
                *("namespace", "horizontalpodautoscaler", "condition", "status"),
            ),
            "kube_daemonset_status_number_unavailable": ("namespace", "daemonset"),
            "kube_horizontalpodautoscaler_status_desired_replicas": (
                "namespace",
                "horizontalpodautoscaler",
            ),
            "kube_horizontalpodautoscaler_spec_max_replicas": (
                "namespace",
                "horizontalpodautoscaler",
            ),
            "kube_horizontalpodautoscaler_status_current_replicas": (
                *("namespace", "horizontalpodautoscaler"),
            ),
            "kube_horizontalpodautoscaler_spec_min_replicas": (
                *("namespace", "horizontalpodautoscaler"),
            ),
            "kube_node_spec_unschedulable": ("node",),
            "kube_node_status_allocatable": ("node", "resource", "unit"),
            "kube_node_status_condition": ("node", "condition", "status"),
        },
    ),
    Foreign(
        "cAdvisor, in the kubelet 1.34",
        {
            "container_cpu_usage_seconds_total": (*_POD, "cpu", "image"),
            "container_memory_working_set_bytes": (*_POD, "image"),
            "container_cpu_cfs_periods_total": (*_POD, "image"),
            "container_cpu_cfs_throttled_periods_total": (*_POD, "image"),
        },
    ),
    Foreign(
        "node-problem-detector 1.36.0",
        {"problem_gauge": ("type", "reason"), "problem_counter": ("reason",)},
    ),
)


def families() -> tuple[Family, ...]:
    """Our metrics, worker first, by name; those of the process, which both have, once."""
    remediator = RemediatorMetrics(restores=True)
    remediator.api.watch_age("nodes", lambda: 0.0)
    registries = (WorkerMetrics().registry, remediator.registry)
    found = {family.name: family for registry in registries for family in _of(registry)}
    return tuple(found.values())


def known() -> dict[str, frozenset[str]]:
    """Every series that may be named → the labels that it may be selected by."""
    found: dict[str, frozenset[str]] = {
        "up": TARGET_LABELS,
        "ALERTS": TARGET_LABELS | {"alertname", "alertstate", "severity", "release"},
    }
    for family in families():
        for series in family.series:
            extra = {"le"} if series.endswith("_bucket") else set()
            found[series] = TARGET_LABELS | {*family.labels, *extra}
    for foreign in FOREIGN:
        for name, labels in foreign.metrics.items():
            found[name] = TARGET_LABELS | set(labels)
    return found


def _of(registry: CollectorRegistry) -> Iterator[Family]:
    labels = _labels(registry)
    for metric in sorted(registry.collect(), key=lambda metric: metric.name):
        yield Family(
            metric.name,
            metric.type,
            _unit(metric),
            labels.get(metric.name, ()),
            metric.documentation.rstrip("."),
        )


def _labels(registry: CollectorRegistry) -> dict[str, tuple[str, ...]]:
    """The label names of each metric, including those without a series yet."""
    found = {}
    for collector in registry._collector_to_names:
        # The process's own collector describes no labels, and has none.
        for metric in collector.describe() if hasattr(collector, "describe") else ():
            found[metric.name] = tuple(getattr(collector, "_labelnames", ()))
    return found


def _unit(metric: Metric) -> str:
    return next((u for u in _UNITS if metric.name.endswith((f"_{u}", f"_{u}_total"))), "")


def page() -> str:
    """alerts/metrics.md: what is exported, for people."""
    lines = [
        "# Metrics",
        "",
        "Written by `python -m alerts write` from the code; a test compares the two. The series",
        "of a counter ends in `_total`; a histogram has `_bucket`, `_sum` and `_count`. Beside the",
        "labels below each series has those of its target: `namespace`, `pod`, `job`, `instance`.",
        "No label below has a name that Prometheus' usual configurations give to targets, so none",
        "is renamed to `exported_…`: `cordoned_node` is the node that was cordoned, and a `node`",
        "beside it the one that the remediator runs on.",
        "",
        *_table("Worker and remediator", families()),
        "## Metrics of other exporters",
        "",
        "Alerts and dashboards also use these; without the exporter a panel shows a note.",
        "",
        "| Exporter | Series |",
        "|---|---|",
    ]
    lines += [
        f"| {foreign.exporter} | {', '.join(f'`{name}`' for name in foreign.metrics)} |"
        for foreign in FOREIGN
    ]
    lines += [
        "",
        "## Alerts that wake somebody",
        "",
        "Each critical alert states why a person must act at night, here and in its runbook.",
        "Alerts that can wait until the morning are warnings.",
        "",
        "| Alert | Why at night |",
        "|---|---|",
        *(f"| `{alert.name}` | {alert.night} |" for alert in ALERTS if alert.night),
    ]
    return "\n".join(lines) + "\n"


def _table(title: str, rows: Iterable[Family]) -> list[str]:
    lines = [
        f"## {title}",
        "",
        "| Metric | Type | Unit | Labels | Meaning |",
        "|---|---|---|---|---|",
    ]
    for family in rows:
        labels = "; ".join(_described(family, label) for label in family.labels)
        lines.append(
            f"| `{family.name}` | {family.kind} | {family.unit or 'count'} | {labels} "
            f"| {family.meaning} |"
        )
    return [*lines, ""]


def _described(family: Family, label: str) -> str:
    values = LABELS[family.name, label]
    return f"`{label}`: " + (values if isinstance(values, str) else ", ".join(values))
