"""Are messages processed, and is the cluster healthy?"""

from __future__ import annotations

from alerts.records import FAILED, increase
from dashboards.panels import (
    AUTOSCALERS,
    BROKER,
    CLUSTER,
    DEPLOYMENT,
    FIRING,
    KEDA,
    OWN_BROKER,
    PLACE,
    PODS,
    REMEDIATOR,
    WORKER,
    Board,
    Panel,
    Query,
    Row,
)

_STATE_METRICS = "no data: kube-state-metrics is not scraped"
_KUBELET = "no data: the kubelet's cAdvisor is not scraped"
_QUEUES = (
    "no data: RabbitMQ's /metrics/detailed is not scraped, or another broker is selected above"
)
_NO_SCALER = "no data: KEDA is not scraped, or does not scale this release"
_WORKERS = "no data: scaled to zero, or not scraped"
_CALLS = f"gen_ai_client_operation_duration_seconds_count{{{WORKER}}}"
_BAD_CALLS = f'gen_ai_client_operation_duration_seconds_count{{{WORKER},error_type!=""}}'
_ANSWERED = f'rate(selfheal_worker_messages_total{{{WORKER},outcome="answered"}}[$__rate_interval])'
_LOST = f"rate(selfheal_worker_dead_letters_total{{{WORKER},{FAILED}}}[$__rate_interval])"
_HPA = 'cluster=~"$cluster",namespace="$namespace",horizontalpodautoscaler=~"(keda-hpa-)?$release-worker"'
_DEAD = increase("selfheal_worker_dead_letters_total{%worker%}", "30m").replace("%worker%", WORKER)


def _alerts(severity: str, value: int) -> Query:
    """A distinct value per severity, because colours depend on values."""
    firing = f'ALERTS{{{FIRING},severity="{severity}"}}'
    return Query(f"{value} * max by (alertname) ({firing})", f"{{{{alertname}}}} ({severity})")


def _condition(condition: str, legend: str) -> Query:
    """Whether it is true of each autoscaler of the release."""
    of = f'{AUTOSCALERS},condition="{condition}",status="true"'
    return Query(
        f"max by (horizontalpodautoscaler) (kube_horizontalpodautoscaler_status_condition{{{of}}})",
        f"{{{{horizontalpodautoscaler}}}} {legend}",
    )


def _keda(metric: str, form: str = "{}") -> str:
    """KEDA's series of this release."""
    return " or ".join(form.format(f"{metric}{{{matchers}}}") for matchers in KEDA)


def _own(metric: str, chosen: str = "") -> str:
    """Of the release's broker, also while it is down; without a broker of its own, of the selected one."""
    bundled = f'kube_statefulset_status_replicas_ready{{{PLACE},statefulset="$release-rabbitmq"}}'
    return (
        f"{metric}{{{BROKER}{chosen}}} or {metric}{{{OWN_BROKER}{chosen}}}"
        f" unless on () ({metric}{{{BROKER}}} or {bundled})"
    )


def _queues(metric: str) -> str:
    chosen = ',queue=~"$queue"'
    return f"sum by (namespace, queue) ({_own(metric, chosen)})"


#: Which pod is on which node; a pod that was recreated under its name is on one of the two.
_ON_NODE = (
    "topk by (cluster, namespace, pod) (1, max by (cluster, namespace, pod, node) ("
    f'kube_pod_info{{{CLUSTER},node!=""}}))'
)


def _most(value: str, resource: str) -> tuple[Query, ...]:
    """The ten nodes of which the largest share is taken: the node is shared by all pods."""
    has = f'kube_node_status_allocatable{{{CLUSTER},resource="{resource}"}}'
    share = f"sum by (cluster, node) ({value}) / max by (cluster, node) ({has}) >= 0"
    return (Query(f"topk(10, {share})", "{{node}}"),)


def _used(series: str, resource: str, *, rate: bool) -> tuple[Query, ...]:
    """By the pods' nodes: not every scrape of a kubelet has the label `node`."""
    matched = f'{series}{{{CLUSTER},container!=""}}'
    value = f"rate({matched}[$__rate_interval])" if rate else matched
    return _most(
        f"sum by (cluster, namespace, pod) ({value})"
        f" * on (cluster, namespace, pod) group_left (node) {_ON_NODE}",
        resource,
    )


def _requested(resource: str) -> tuple[Query, ...]:
    """Pods that have ended, or were evicted and remain in the API, request nothing any more."""
    asked = f'kube_pod_container_resource_requests{{{CLUSTER},resource="{resource}",node!=""}}'
    runs = f'kube_pod_status_phase{{{CLUSTER},phase=~"Pending|Running"}} == 1'
    return _most(f"{asked} and on (cluster, namespace, pod, uid) ({runs})", resource)


_ERRORS = _keda("keda_scaler_detail_errors_total", "increase({}[$__rate_interval])")
_WORK = Row(
    "Work",
    (
        Panel(
            "Firing alerts",
            "Firing alerts of this release, and since when. Each names its runbook.",
            "short",
            (_alerts("critical", 2), _alerts("warning", 1), _alerts("info", 0)),
            kind="timeline",
            empty="none fires, or the alerts of the chart are not loaded",
            steps=((None, "blue"), (1, "orange"), (2, "red")),
            mappings={"0": "info", "1": "warning", "2": "critical"},
            width=24,
            height=6,
        ),
        Panel(
            "Answered",
            "Messages answered per second, by all workers.",
            "cps",
            (Query(f"sum({_ANSWERED})"),),
            kind="number",
            empty=_WORKERS,
            width=4,
            height=4,
        ),
        Panel(
            "Success",
            "Share of the messages that a model could answer and did. Malformed ones do not count.",
            "percentunit",
            (Query(f"sum({_ANSWERED}) / (sum({_ANSWERED}) + sum({_LOST})) >= 0"),),
            kind="number",
            empty="no messages",
            steps=((None, "red"), (0.95, "orange"), (0.99, "green")),
            width=4,
            height=4,
        ),
        Panel(
            "Wait in the queue",
            "95 of 100 messages were received within this time after they were published.",
            "s",
            (
                Query(
                    "histogram_quantile(0.95, sum by (le) (rate("
                    f"selfheal_worker_queue_wait_seconds_bucket{{{WORKER}}}[$__rate_interval]))) >= 0"
                ),
            ),
            kind="number",
            empty="no messages with a timestamp",
            steps=((None, "green"), (60, "orange"), (300, "red")),
            width=4,
            height=4,
        ),
        Panel(
            "Dead letters",
            "Messages that were dead-lettered within 30 minutes, for any reason.",
            "short",
            (Query(f"round(sum({_DEAD}))"),),
            kind="number",
            empty=_WORKERS,
            steps=((None, "green"), (1, "orange"), (10, "red")),
            width=4,
            height=4,
        ),
        Panel(
            "Model latency",
            "95 of 100 model calls ended within this time.",
            "s",
            (
                Query(
                    "histogram_quantile(0.95, sum by (le) (rate("
                    f"gen_ai_client_operation_duration_seconds_bucket{{{WORKER}}}[$__rate_interval]))) >= 0"
                ),
            ),
            kind="number",
            empty="no model was called",
            width=4,
            height=4,
        ),
        Panel(
            "Model errors",
            "Share of the model calls that failed.",
            "percentunit",
            (
                Query(
                    f"(sum(rate({_BAD_CALLS}[$__rate_interval])) or vector(0))"
                    f" / sum(rate({_CALLS}[$__rate_interval])) >= 0"
                ),
            ),
            kind="number",
            empty="no model was called",
            steps=((None, "green"), (0.05, "orange"), (0.2, "red")),
            width=4,
            height=4,
        ),
        Panel(
            "Ready workers",
            "Workers that have a warm model and consume.",
            "short",
            (Query(f"sum(selfheal_worker_ready{{{WORKER}}})"),),
            kind="number",
            empty=_WORKERS,
            width=8,
            height=4,
        ),
        Panel(
            "Cordoned by the remediator",
            "Nodes that the remediator keeps out of service.",
            "short",
            (
                Query(
                    f"sum(max by (phase) (selfheal_remediator_cordoned_nodes{{{REMEDIATOR}}}))"
                    f" or 0 * max(selfheal_remediator_leader{{{REMEDIATOR}}})"
                ),
            ),
            kind="number",
            empty="no data: no remediator, or it is not scraped",
            steps=((None, "green"), (1, "orange")),
            width=8,
            height=4,
        ),
        Panel(
            "Remediator leads",
            "1: a remediator is the leader. 0: no remediator acts on nodes.",
            "short",
            (Query(f"sum(selfheal_remediator_leader{{{REMEDIATOR}}})"),),
            kind="number",
            empty="no data: no remediator, or it is not scraped",
            steps=((None, "red"), (1, "green")),
            width=8,
            height=4,
        ),
        Panel(
            "Queue depth",
            "Ready and unacknowledged messages of each queue. A result queue that only grows has no consumer. "
            "With your own broker, select its namespace and the queues above.",
            "short",
            (
                Query(
                    _queues("rabbitmq_detailed_queue_messages_ready"),
                    "{{queue}} ready {{namespace}}",
                ),
                Query(
                    _queues("rabbitmq_detailed_queue_messages_unacked"),
                    "{{queue}} unacknowledged {{namespace}}",
                ),
            ),
            empty=_QUEUES,
            whole=False,
        ),
        Panel(
            "Consumers",
            "Consumers of each queue. The delay queues never have one.",
            "short",
            (Query(_queues("rabbitmq_detailed_queue_consumers"), "{{queue}} {{namespace}}"),),
            empty=_QUEUES,
        ),
        Panel(
            "Settled",
            "Outcomes of messages per second.",
            "cps",
            (
                Query(
                    "sum by (outcome) (rate(selfheal_worker_messages_total"
                    f"{{{WORKER}}}[$__rate_interval]))",
                    "{{outcome}}",
                ),
            ),
            empty="no worker runs",
        ),
    ),
)

_SCALE = Row(
    "Scale",
    (
        Panel(
            "Replicas",
            "Desired and ready workers of the Deployment, the autoscaler's desired number, and its maximum.",
            "short",
            (
                Query(f"max(kube_deployment_spec_replicas{{{DEPLOYMENT}}})", "wanted"),
                Query(f"max(kube_deployment_status_replicas_ready{{{DEPLOYMENT}}})", "ready"),
                Query(
                    f"max(kube_horizontalpodautoscaler_status_desired_replicas{{{_HPA}}})",
                    "autoscaler",
                ),
                Query(f"max(kube_horizontalpodautoscaler_spec_max_replicas{{{_HPA}}})", "maximum"),
            ),
            empty=_STATE_METRICS,
        ),
        Panel(
            "Scaler",
            "What KEDA reads from the queue.",
            "short",
            (Query(f"max({_keda('keda_scaler_metrics_value')})", "messages"),),
            empty=_NO_SCALER,
            whole=False,
        ),
        Panel(
            "Scaler errors",
            "KEDA's failures to read the queue.",
            "short",
            (Query(f"sum({_ERRORS})", "errors"),),
            empty="none yet, or KEDA is not scraped",
        ),
        Panel(
            "Autoscaler conditions",
            "Whether each autoscaler is able to scale (AbleToScale), reads its metric (ScalingActive: no is "
            "normal at zero workers), and is kept at its minimum or maximum (ScalingLimited: yes is normal at "
            "the minimum of an idle queue); and whether KEDA wants any worker.",
            "short",
            (
                _condition("AbleToScale", "is able to scale"),
                _condition("ScalingActive", "reads its metric"),
                _condition("ScalingLimited", "is at its limit"),
                Query(f"max({_keda('keda_scaler_active')})", "KEDA's scaler is active"),
            ),
            kind="timeline",
            empty="no data: no autoscaler, or kube-state-metrics is not scraped",
            steps=((None, "text"), (1, "blue")),
            mappings={"0": "no", "1": "yes"},
            width=24,
            height=6,
        ),
        Panel(
            "Restarts",
            "Container restarts within an hour.",
            "short",
            (
                Query(
                    "sum by (pod, container) (increase("
                    f"kube_pod_container_status_restarts_total{{{PODS}}}[1h])) > 0",
                    "{{pod}} {{container}}",
                ),
            ),
            empty="none, or kube-state-metrics is not scraped",
            width=6,
        ),
        Panel(
            "Out-of-memory kills",
            "Containers that were last terminated at their memory limit.",
            "short",
            (
                Query(
                    "sum by (pod, container) (kube_pod_container_status_last_terminated_reason"
                    f'{{{PODS},reason="OOMKilled"}}) > 0',
                    "{{pod}} {{container}}",
                ),
            ),
            empty="none, or kube-state-metrics is not scraped",
            width=6,
        ),
        Panel(
            "Unschedulable pods",
            "Pods that cannot be scheduled.",
            "short",
            (Query(f"sum(kube_pod_status_unschedulable{{{PODS}}})", "unschedulable"),),
            empty="none, or kube-state-metrics is not scraped",
            width=6,
        ),
        Panel(
            "Cordoned nodes",
            "Nodes of the cluster that are unschedulable, whoever cordoned them.",
            "short",
            (Query(f"sum(kube_node_spec_unschedulable{{{CLUSTER}}})", "cordoned"),),
            empty=_STATE_METRICS,
            width=6,
        ),
    ),
)

_RESOURCES = Row(
    "Resources",
    (
        Panel(
            "CPU by pod",
            "CPU usage, and the request and limit of one container of each kind.",
            "short",
            (
                Query(
                    "sum by (pod) (rate(container_cpu_usage_seconds_total"
                    f'{{{PODS},container!=""}}[$__rate_interval]))',
                    "{{pod}}",
                ),
                Query(
                    "max by (container) (kube_pod_container_resource_requests"
                    f'{{{PODS},resource="cpu"}})',
                    "{{container}} requested",
                ),
                Query(
                    "max by (container) (kube_pod_container_resource_limits"
                    f'{{{PODS},resource="cpu"}})',
                    "{{container}} limit",
                ),
            ),
            empty=_KUBELET,
            whole=False,
            least=0.1,
        ),
        Panel(
            "Memory by pod",
            "Working set, what is requested for one container of its kind, and the limit at which it is "
            "killed.",
            "bytes",
            (
                Query(
                    f'sum by (pod) (container_memory_working_set_bytes{{{PODS},container!=""}})',
                    "{{pod}}",
                ),
                Query(
                    "max by (container) (kube_pod_container_resource_requests"
                    f'{{{PODS},resource="memory"}})',
                    "{{container}} requested",
                ),
                Query(
                    "max by (container) (kube_pod_container_resource_limits"
                    f'{{{PODS},resource="memory"}})',
                    "{{container}} limit",
                ),
            ),
            empty=_KUBELET,
        ),
        Panel(
            "Throttling",
            "Share of the scheduling periods in which a container was throttled by its CPU limit.",
            "percentunit",
            (
                Query(
                    "sum by (pod) (rate(container_cpu_cfs_throttled_periods_total"
                    f"{{{PODS}}}[$__rate_interval])) / sum by (pod) "
                    f"(rate(container_cpu_cfs_periods_total{{{PODS}}}[$__rate_interval])) >= 0",
                    "{{pod}}",
                ),
            ),
            empty="none: no CPU limits are set, or cAdvisor is not scraped",
        ),
        Panel(
            "Broker disk",
            "Free space on the broker's disk, and the limit below which it blocks publishers.",
            "bytes",
            (
                Query(f"min({_own('rabbitmq_disk_space_available_bytes')})", "free"),
                Query(f"max({_own('rabbitmq_disk_space_available_limit_bytes')})", "limit"),
            ),
            empty="no data: RabbitMQ's /metrics is not scraped",
            width=24,
        ),
        Panel(
            "CPU by node",
            "The ten busiest nodes: CPU that all pods of the node use, as a share of what it has for pods.",
            "percentunit",
            _used("container_cpu_usage_seconds_total", "cpu", rate=True),
            empty="no data: cAdvisor or kube-state-metrics is not scraped",
            steps=((None, "green"), (0.9, "orange")),
            width=12,
        ),
        Panel(
            "Memory by node",
            "The ten fullest nodes: memory (working set) that all pods of the node use, as a share of what "
            "it has for pods. A node that is nearly full evicts pods.",
            "percentunit",
            _used("container_memory_working_set_bytes", "memory", rate=False),
            empty="no data: cAdvisor or kube-state-metrics is not scraped",
            steps=((None, "green"), (0.9, "orange")),
            width=12,
        ),
        Panel(
            "CPU requested by node",
            "The ten nodes with the highest CPU requests of their pods, as a share of what the node "
            "has for pods. Near 100 % the pods of a drained node do not fit.",
            "percentunit",
            _requested("cpu"),
            empty=_STATE_METRICS,
            steps=((None, "green"), (0.9, "orange")),
            width=12,
        ),
        Panel(
            "Memory requested by node",
            "The ten nodes with the highest memory requests of their pods, as a share of what the "
            "node has for pods. Near 100 % the pods of a drained node do not fit.",
            "percentunit",
            _requested("memory"),
            empty=_STATE_METRICS,
            steps=((None, "green"), (0.9, "orange")),
            width=12,
        ),
    ),
)

OVERVIEW = Board(
    "selfheal-overview",
    "selfheal / Overview",
    "Are messages processed, and is the cluster healthy?",
    (_WORK, _SCALE, _RESOURCES),
)
