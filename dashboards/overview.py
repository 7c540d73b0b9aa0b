"""Is work flowing, and is the cluster healthy?"""

from __future__ import annotations

from alerts.records import FAILED
from dashboards.panels import (
    BROKER,
    CLUSTER,
    DEPLOYMENT,
    KEDA,
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
_QUEUES = "no data: RabbitMQ's /metrics/detailed is not scraped"
_ANSWERED = f'rate(selfheal_worker_messages_total{{{WORKER},outcome="answered"}}[$__rate_interval])'
_LOST = f"rate(selfheal_worker_dead_letters_total{{{WORKER},{FAILED}}}[$__rate_interval])"
_HPA = 'cluster=~"$cluster",namespace="$namespace",horizontalpodautoscaler=~"(keda-hpa-)?$release-worker"'


def _keda(metric: str, form: str = "{}") -> str:
    """What KEDA says of this release: each of its series, in the form."""
    return " or ".join(form.format(f"{metric}{{{matchers}}}") for matchers in KEDA)


def _by_node(used: str, resource: str, *, rate: bool) -> tuple[Query, ...]:
    """Of all pods, whoever owns them: the node is shared."""
    series = f'{used}{{{CLUSTER},container!=""}}'
    asked = f'kube_pod_container_resource_requests{{{CLUSTER},resource="{resource}"}}'
    there = f'kube_node_status_allocatable{{{CLUSTER},resource="{resource}"}}'
    value = f"rate({series}[$__rate_interval])" if rate else series
    return (
        Query(f"sum by (node) ({value})", "{{node}} used"),
        Query(f"sum by (node) ({asked})", "{{node}} requested"),
        Query(f"max by (node) ({there})", "{{node}} has"),
    )


_ERRORS = _keda("keda_scaler_detail_errors_total", "increase({}[$__rate_interval])")
_WORK = Row(
    "Work",
    (
        Panel(
            "Answered",
            "Messages answered a second, by all workers.",
            "cps",
            (Query(f"sum({_ANSWERED})"),),
            kind="number",
            empty="no worker runs",
            width=4,
            height=4,
        ),
        Panel(
            "Success",
            "Share of the messages that could be answered and were. Malformed ones do not count.",
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
            "95 of 100 messages were taken within this time after they were published.",
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
            "Ready workers",
            "Workers that have a warm model and consume.",
            "short",
            (Query(f"sum(selfheal_worker_ready{{{WORKER}}})"),),
            kind="number",
            empty="scaled to zero",
            width=4,
            height=4,
        ),
        Panel(
            "Held nodes",
            "Nodes that the remediator keeps out of service.",
            "short",
            (Query(f"sum(max by (phase) (selfheal_remediator_held_nodes{{{REMEDIATOR}}}))"),),
            kind="number",
            empty="none",
            steps=((None, "green"), (1, "orange")),
            width=4,
            height=4,
        ),
        Panel(
            "Remediator leads",
            "1: a remediator holds the Lease. 0: nobody looks after the nodes.",
            "short",
            (Query(f"sum(selfheal_remediator_leader{{{REMEDIATOR}}})"),),
            kind="number",
            empty="no remediator in this release",
            steps=((None, "red"), (1, "green")),
            width=4,
            height=4,
        ),
        Panel(
            "Queue depth",
            "Messages ready in each queue, and in work. A results queue that only grows has no reader.",
            "short",
            (
                Query(
                    f"sum by (queue) (rabbitmq_detailed_queue_messages_ready{{{BROKER}}})",
                    "{{queue}} ready",
                ),
                Query(
                    f"sum by (queue) (rabbitmq_detailed_queue_messages_unacked{{{BROKER}}})",
                    "{{queue}} in work",
                ),
            ),
            empty=_QUEUES,
        ),
        Panel(
            "Consumers",
            "Consumers of each queue. The delay queues never have one.",
            "short",
            (
                Query(
                    f"sum by (queue) (rabbitmq_detailed_queue_consumers{{{BROKER}}})", "{{queue}}"
                ),
            ),
            empty=_QUEUES,
        ),
        Panel(
            "Broker disk",
            "Free space on the broker's disk, and the limit below which it takes no more messages.",
            "bytes",
            (
                Query(f"min(rabbitmq_disk_space_available_bytes{{{BROKER}}})", "free"),
                Query(f"max(rabbitmq_disk_space_available_limit_bytes{{{BROKER}}})", "limit"),
            ),
            empty="no data: RabbitMQ's /metrics is not scraped",
        ),
        Panel(
            "Settled",
            "What became of messages, a second.",
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
            "Workers wanted by the Deployment and ready, the autoscaler's wish and its limit.",
            "short",
            (
                Query(f"max(kube_deployment_spec_replicas{{{DEPLOYMENT}}})", "wanted"),
                Query(f"max(kube_deployment_status_replicas_ready{{{DEPLOYMENT}}})", "ready"),
                Query(
                    f"max(kube_horizontalpodautoscaler_status_desired_replicas{{{_HPA}}})",
                    "autoscaler",
                ),
                Query(f"max(kube_horizontalpodautoscaler_spec_max_replicas{{{_HPA}}})", "most"),
            ),
            empty=_STATE_METRICS,
        ),
        Panel(
            "Scaler",
            "What KEDA reads from the queue, whether it counts as active, and its errors.",
            "short",
            (
                Query(f"max({_keda('keda_scaler_metrics_value')})", "messages"),
                Query(f"max({_keda('keda_scaler_active')})", "active"),
                Query(f"sum({_ERRORS})", "errors"),
            ),
            empty="no data: KEDA is not scraped, or does not scale this release",
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
        ),
        Panel(
            "Killed for memory",
            "Containers whose last end was the memory limit.",
            "short",
            (
                Query(
                    "sum by (pod, container) (kube_pod_container_status_last_terminated_reason"
                    f'{{{PODS},reason="OOMKilled"}}) > 0',
                    "{{pod}} {{container}}",
                ),
            ),
            empty="none, or kube-state-metrics is not scraped",
        ),
        Panel(
            "Pods without a node",
            "Pods that the scheduler cannot place.",
            "short",
            (Query(f"sum(kube_pod_status_unschedulable{{{PODS}}})", "unschedulable"),),
            empty="none, or kube-state-metrics is not scraped",
        ),
        Panel(
            "Cordoned nodes",
            "Nodes of the cluster that are unschedulable, whoever made them so.",
            "short",
            (Query(f"sum(kube_node_spec_unschedulable{{{CLUSTER}}})", "cordoned"),),
            empty=_STATE_METRICS,
        ),
    ),
)

_RESOURCES = Row(
    "Resources",
    (
        Panel(
            "CPU by pod",
            "CPU in use, what is requested for one container of its kind, and where it is held back.",
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
            "Share of the scheduling periods in which a container was held back by its CPU limit.",
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
            "CPU by node",
            "CPU that all pods of a node use and request, and what the node has for pods. Requests "
            "near the line leave no room for a drained node's pods.",
            "short",
            _by_node("container_cpu_usage_seconds_total", "cpu", rate=True),
            empty=_KUBELET,
            width=12,
        ),
        Panel(
            "Memory by node",
            "Working set and requests of all pods of a node, and what the node has for pods.",
            "bytes",
            _by_node("container_memory_working_set_bytes", "memory", rate=False),
            empty=_KUBELET,
            width=12,
        ),
    ),
)

OVERVIEW = Board(
    "selfheal-overview",
    "selfheal / Overview",
    "Is work flowing, and is the cluster healthy?",
    (_WORK, _SCALE, _RESOURCES),
)
