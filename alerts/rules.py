"""The alerts, as data. `python -m alerts write` writes them into the chart.

In an expression `%name%` is filled in by the chart: matchers of this release's series (`%worker%`,
`%remediator%`, `%pods%` for all its pods), its names (`%namespace%`, `%release%`, `%queue%`,
`%results%`), its objectives (`%successBudget%`, `%waitBudget%`, `%waitSeconds%`) and the alert's own
`%threshold%` and `%for%` (how long the expression must be true). All of them, and whole alerts, can be
set in values.
"""

from __future__ import annotations

from dataclasses import dataclass

from alerts.records import increase


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert. `panel` is the title of the dashboard's panel that shows it.

    for_: how long the expression must be true, in Prometheus' notation, or the name of such a value. threshold: the number that
    replaces `%threshold%`; None if the expression has none. needs: `worker`,
    `remediator`, `rabbitmq` (the bundled broker, or the matchers of another one), `keda`, `ollama`,
    `ladder` (a rule with `then` or `verify`), `restore` (deleted objects are made again), `detector`, `autoscaler` (KEDA's, or a HorizontalPodAutoscaler of the chart's), `deployments` (any
    of worker, remediator, ollama), `pods` (always present). night: for a critical alert, one sentence on
    why a person must act at night; its runbook repeats it.
    """

    name: str
    needs: tuple[str, ...]
    severity: str
    for_: str
    expr: str
    summary: str
    description: str
    dashboard: str
    panel: str
    threshold: float | None = None
    night: str = ""

    @property
    def team(self) -> str:
        """Who can fix it: those who run the nodes (platform), or those who run the queue (pipeline)."""
        return "platform" if {"remediator", "detector"} & set(self.needs) else "pipeline"


def _burn(name: str, budget: str, *pairs: tuple[str, str, str]) -> str:
    """Both a long and a short window spend the budget `factor` times too fast.

    With a large budget that would be more than all of the messages: nine of ten are enough.
    """
    terms = []
    for long, short, factor in pairs:
        limit = f"scalar(clamp_max(vector({factor} * %{budget}%), 0.9))"
        terms.append(
            f"(selfheal:{name}:ratio_rate{long}{{%self%}} > {limit}"
            f" and selfheal:{name}:ratio_rate{short}{{%self%}} > {limit})"
        )
    return "\n  or ".join(terms)


def _burn_fast(name: str, budget: str) -> str:
    """Requires more failures than the threshold: of a few messages, one is already a large share."""
    pace = _burn(name, budget, ("1h", "5m", "14.4"), ("6h", "30m", "6"))
    return f"({pace})\n  and selfheal:{name}:increase6h{{%self%}} > %threshold%"


_SLOW = (("1d", "2h", "3"), ("3d", "6h", "1"))
_WORKER = ("worker",)
_REMEDIATOR = ("remediator",)
_BROKER = ("worker", "rabbitmq")
_OLLAMA = 'namespace="%namespace%",deployment="%release%-ollama"'
_REMEDIATORS = 'namespace="%namespace%",deployment="%release%-remediator"'
#: Limits that only pace: waiting for one of them is normal.
_PACES = "minInterval|rate|maxDraining|paused|signal"

#: A worker starts with its breaker open, and a first pull and load may take ollama.startupSeconds (20
#: minutes): a worker that never had its model counts from 5 minutes before that, the alert's own
#: duration.
_HAD_ITS_MODEL = (
    "(selfheal_worker_model_load_seconds{%worker%}"
    " or process_start_time_seconds{%worker%} < time() - %firstLoad%)"
)


def _share(bad: str, all_: str) -> str:
    """More than the threshold as a share of all workers: one of many is no reason to page."""
    return f"count({bad}) / count({all_}) > %threshold%"


_MODEL_BREAKERS = f'selfheal_worker_breaker_state{{%worker%,breaker="model"}} and on (pod, instance) {_HAD_ITS_MODEL}'
_RESULTS_BREAKERS = 'selfheal_worker_breaker_state{%worker%,breaker="results"}'
_CONNECTED = "selfheal_worker_broker_connected{%worker%}"

_HPA = "horizontalpodautoscaler"
_OF_KEDA = 'keda_scaler_detail_errors_total{scaledObject="%release%-worker",'
#: If KEDA's pod is scraped, the pod's namespace replaces the label.
_KEDA_ERRORS = (
    f'increase({_OF_KEDA}namespace="%namespace%"}}[10m])'
    f' or increase({_OF_KEDA}exported_namespace="%namespace%"}}[10m])'
)
_STATEFUL = 'kube_statefulset_status_replicas_ready{namespace="%namespace%",statefulset="%release%-rabbitmq"}'
_DISK = "rabbitmq_disk_space_available_bytes{%broker%}"
_DISK_LIMIT = "rabbitmq_disk_space_available_limit_bytes{%broker%}"

#: Only the leader evaluates policies.
_LEADS = "and on (pod) selfheal_remediator_leader{%remediator%} == 1"
_POLICY_PODS = "selfheal_remediator_policy_pods{%remediator%"

_SLO = (
    Alert(
        "SelfhealResultsBurnFast",
        _WORKER,
        "critical",
        "2m",
        _burn_fast("results_failed", "successBudget"),
        "{{ $value | humanizePercentage }} of the messages of %release% fail",
        "{{ $value | humanizePercentage }} of the messages end as dead letters after all their "
        "retries; the objective allows {{ %successBudget% | humanizePercentage }} over 30 days. At "
        "this rate the whole budget is used up within two to five days.",
        "selfheal-worker",
        "Failed share against the objective",
        5,
        night=(
            "At 14.4 times the allowed rate one night uses up a sixth of the budget of 30 days, "
            "and a complete failure uses up all of it within hours."
        ),
    ),
    Alert(
        "SelfhealResultsBurnSlow",
        _WORKER,
        "warning",
        "15m",
        _burn("results_failed", "successBudget", *_SLOW),
        "{{ $value | humanizePercentage }} of the messages of %release% fail, for hours",
        "{{ $value | humanizePercentage }} of the messages end as dead letters after all their "
        "retries; the objective allows {{ %successBudget% | humanizePercentage }} over 30 days.",
        "selfheal-worker",
        "Failed share against the objective",
    ),
    Alert(
        "SelfhealQueueWaitBurnFast",
        _WORKER,
        "warning",
        "2m",
        _burn_fast("queue_wait_late", "waitBudget"),
        "{{ $value | humanizePercentage }} of the messages of %release% wait over %waitSeconds% s",
        "{{ $value | humanizePercentage }} of the messages were received later than %waitSeconds% "
        "seconds after they were published; the objective allows "
        "{{ %waitBudget% | humanizePercentage }}.",
        "selfheal-worker",
        "Late share against the objective",
        5,
    ),
    Alert(
        "SelfhealQueueWaitBurnSlow",
        _WORKER,
        "warning",
        "15m",
        _burn("queue_wait_late", "waitBudget", *_SLOW),
        "{{ $value | humanizePercentage }} of the messages of %release% wait over %waitSeconds% s, "
        "for hours",
        "{{ $value | humanizePercentage }} of the messages were received later than %waitSeconds% "
        "seconds after they were published; the objective allows "
        "{{ %waitBudget% | humanizePercentage }}.",
        "selfheal-worker",
        "Late share against the objective",
    ),
)

_WORK = (
    Alert(
        "SelfhealDeadLettersGrowing",
        _WORKER,
        "warning",
        "0m",
        "sum by (reason) ("
        f"{increase('selfheal_worker_dead_letters_total{%worker%}', '30m')}) > %threshold%",
        '{{ $value | printf "%.0f" | humanize }} dead letters ({{ $labels.reason }}) in 30 minutes',
        '{{ $value | printf "%.0f" | humanize }} messages of the queue %queue% were dead-lettered in the last '
        "30 minutes as {{ $labels.reason }}, more than %threshold%.",
        "selfheal-worker",
        "Dead letters by reason",
        10,
    ),
    Alert(
        "SelfhealModelBreakerOpen",
        _WORKER,
        "critical",
        "5m",
        _share(_MODEL_BREAKERS.replace(" and", " > 0 and", 1), _MODEL_BREAKERS),
        "{{ $value | humanizePercentage }} of the workers of %release% have stopped consuming: the model does not answer",
        "{{ $value | humanizePercentage }} of the workers have waited for their model for %for%; workers "
        "that never had it count only after the time that a first load may take. Messages stay in the queue %queue% and "
        "no attempt is counted; work resumes by itself when the model answers.",
        "selfheal-model",
        "Breaker",
        0.5,
        night=(
            "Nothing is answered until somebody restores the model, and the messages of a "
            "night take hours to process."
        ),
    ),
    Alert(
        "SelfhealResultsBreakerOpen",
        _WORKER,
        "critical",
        "5m",
        _share(f"{_RESULTS_BREAKERS} > 0", _RESULTS_BREAKERS),
        "{{ $value | humanizePercentage }} of the workers of %release% cannot publish results",
        "The broker has accepted no results from {{ $value | humanizePercentage }} of the workers for %for%: the queue %results% is "
        "missing, full, or rejects them. No message is lost, but nothing is answered.",
        "selfheal-worker",
        "Breakers",
        0.5,
        night=(
            "Nothing is answered until somebody makes room for results or restores the queue; "
            "no part of the system can."
        ),
    ),
    Alert(
        "SelfhealModelNotLoading",
        _WORKER,
        "warning",
        "15m",
        "count((selfheal_worker_ready{%worker%} == 0)"
        ' and on (pod) (selfheal_worker_messages_total{%worker%,outcome="answered"} == 0))'
        " > %threshold%",
        "{{ $value | humanize }} workers of %release% have not become ready within %for%",
        "{{ $value | humanize }} workers run, have never answered a message and are not ready: the model does "
        "not load or the broker is unreachable.",
        "selfheal-model",
        "Workers without a warm model",
        0,
    ),
    Alert(
        "SelfhealNoConsumers",
        _BROKER,
        "critical",
        "10m",
        'sum(rabbitmq_detailed_queue_messages_ready{%broker%,queue="%queue%"})'
        # For fewer messages KEDA starts no worker, by its configuration.
        " > (%threshold% + %activation%)"
        ' and sum(rabbitmq_detailed_queue_consumers{%broker%,queue="%queue%"}) == 0',
        "{{ $value | humanize }} messages wait in %queue% without a consumer",
        "{{ $value | humanize }} messages are ready in the queue %queue%, which has had no consumer for %for%.",
        "selfheal-overview",
        "Queue depth",
        0,
        night=(
            "Nothing is answered, and no autoscaler has started a worker in this time: it will "
            "not recover by itself."
        ),
    ),
    Alert(
        "SelfhealResultsNotRead",
        _BROKER,
        "warning",
        "30m",
        'sum(rabbitmq_detailed_queue_messages_ready{%broker%,queue="%results%"}) > %threshold%'
        ' and sum(rabbitmq_detailed_queue_consumers{%broker%,queue="%results%"}) == 0',
        "{{ $value | humanize }} results wait in %results% without a consumer",
        "{{ $value | humanize }} results are ready in the queue %results%, more than %threshold%, and it has had "
        "no consumer for %for%. The broker's disk is finite.",
        "selfheal-overview",
        "Queue depth",
        1000,
    ),
    Alert(
        "SelfhealBrokerDown",
        ("rabbitmq",),
        "critical",
        "5m",
        # For an external broker that is not scraped, the workers' connections decide.
        f"(max({_STATEFUL}) == 0 or max(up{{%broker%}}) == 0 unless on () max({_STATEFUL}) > 0)"
        f" unless on () max({_CONNECTED}) == 1",
        "{{ $value | humanize }} nodes of the broker of %release% run",
        "{{ $value | humanize }} nodes of the broker that %release% uses have been ready, or answered a "
        "scrape, for %for%, and no worker is connected to it.",
        "selfheal-overview",
        "Queue depth",
        night=(
            "Publishers are rejected, so that texts which their source cannot store are lost, and nothing is "
            "answered."
        ),
    ),
    Alert(
        "SelfhealBrokerMetricsMissing",
        _BROKER,
        "warning",
        "15m",
        'absent(rabbitmq_detailed_queue_messages_ready{%broker%,queue="%queue%"})',
        "1 source of metrics is missing: RabbitMQ, for the queue %queue%",
        "Prometheus has had no series of RabbitMQ's /metrics/detailed for the queue %queue% for %for%: "
        "the broker is down or not scraped, or the queue was deleted. The alerts on queues cannot fire.",
        "selfheal-overview",
        "Queue depth",
    ),
    Alert(
        "SelfhealBrokerDiskLow",
        ("rabbitmq",),
        "warning",
        "15m",
        f"min({_DISK} < %threshold% * {_DISK_LIMIT} or ({_DISK}"
        f" and predict_linear({_DISK}[1h], 14400) < {_DISK_LIMIT} and {_DISK} < 10 * {_DISK_LIMIT}))",
        "{{ $value | humanize1024 }}B are left on the broker's disk before it blocks publishers",
        "The disk of RabbitMQ has {{ $value | humanize1024 }}B free: less than %threshold% times the limit at which "
        "it blocks publishers, or it will reach the limit within 4 hours.",
        "selfheal-overview",
        "Broker disk",
        2,
    ),
    Alert(
        "SelfhealBrokerUnreachable",
        _WORKER,
        "critical",
        "5m",
        _share(f"{_CONNECTED} == 0", _CONNECTED),
        "{{ $value | humanizePercentage }} of the workers of %release% have no connection to the broker",
        "{{ $value | humanizePercentage }} of the workers have been without a connection to RabbitMQ for "
        "%for%; they keep trying to connect.",
        "selfheal-worker",
        "Broker connections",
        0.5,
        night=(
            "These workers answer nothing, and they cannot repair the broker or the network to it."
        ),
    ),
    Alert(
        "SelfhealBrokerBlocked",
        _WORKER,
        "critical",
        "5m",
        # One is enough: the alarm is the broker's, and only connections that publish are notified.
        "count(selfheal_worker_broker_blocked{%worker%} == 1) > %threshold%",
        "The broker blocks publishes of {{ $value | humanize }} workers of %release%",
        "RabbitMQ has blocked publishers (its memory or disk alarm) for %for%; {{ $value | humanize }} workers "
        "cannot publish their results.",
        "selfheal-worker",
        "Broker connections",
        0,
        night=(
            "No publisher can publish messages any more, so that texts which their source "
            "cannot store are lost."
        ),
    ),
    Alert(
        "SelfhealHandlersHang",
        _WORKER,
        "warning",
        "0m",
        f"sum({increase('selfheal_worker_handler_hangs_total{%worker%}', '30m')}) > %threshold%",
        '{{ $value | printf "%.0f" | humanize }} model calls of %release% passed their deadline in 30 minutes',
        '{{ $value | printf "%.0f" | humanize }} calls did not return by their deadline, more than '
        "%threshold% in 30 minutes; a worker whose calls all hang fails its liveness probe.",
        "selfheal-worker",
        "Hung handlers",
        3,
    ),
    Alert(
        "SelfhealPodsRestarting",
        ("pods",),
        "warning",
        "0m",
        "sum by (pod, container) (increase(kube_pod_container_status_restarts_total{%pods%}[1h]))"
        " > %threshold%",
        '{{ $labels.pod }} restarted {{ $value | printf "%.0f" | humanize }} times in an hour',
        "The container {{ $labels.container }} of {{ $labels.pod }} restarted {{ $value "
        '| printf "%.0f" | humanize }} times within an hour, more than %threshold%.',
        "selfheal-overview",
        "Restarts",
        3,
    ),
    Alert(
        "SelfhealOutOfMemory",
        ("pods",),
        "warning",
        "0m",
        "sum by (pod, container) (increase(kube_pod_container_status_restarts_total{%pods%}[30m]))"
        " > %threshold% and on (pod, container)"
        ' kube_pod_container_status_last_terminated_reason{%pods%,reason="OOMKilled"} == 1',
        '{{ $labels.pod }} was killed for its memory {{ $value | printf "%.0f" | humanize }} times in 30 minutes',
        "The container {{ $labels.container }} of {{ $labels.pod }} reached its memory limit; {{ $value "
        '| printf "%.0f" | humanize }} restarts in 30 minutes. Restarts do not fix this: the limit or the load '
        "must change.",
        "selfheal-overview",
        "Memory by pod",
        0,
    ),
    Alert(
        "SelfhealPodsUnschedulable",
        ("pods",),
        "warning",
        "15m",
        "sum(kube_pod_status_unschedulable{%pods%}) > %threshold%",
        "{{ $value | humanize }} pods of %release% find no node",
        "{{ $value | humanize }} pods of %release% have been unschedulable for %for%: no node has room for "
        "their requests, or too many nodes are cordoned.",
        "selfheal-overview",
        "Replicas",
        0,
    ),
    Alert(
        "SelfhealWorkerMetricsMissing",
        _WORKER,
        "warning",
        "15m",
        'kube_deployment_status_replicas_ready{namespace="%namespace%",deployment="%release%-worker"}'
        " > %threshold% unless on () count(selfheal_worker_ready{%worker%}) > 0",
        "{{ $value | humanize }} workers of %release% are ready, and none is scraped",
        "{{ $value | humanize }} workers are ready, but Prometheus has had no metrics of them for %for%: the "
        "other alerts on workers cannot fire.",
        "selfheal-overview",
        "Replicas",
        0,
    ),
    Alert(
        "SelfhealStateMetricsMissing",
        ("deployments",),
        "warning",
        "15m",
        'absent(kube_deployment_spec_replicas{namespace="%namespace%",'
        'deployment=~"%release%-(worker|remediator|ollama)"})',
        "1 source of metrics is missing: kube-state-metrics",
        "Prometheus has had no series of kube-state-metrics for the Deployments of %release% for %for%: "
        "the alerts on pods, replicas and the autoscaler cannot fire.",
        "selfheal-overview",
        "Replicas",
    ),
    Alert(
        "SelfhealScalerFailing",
        ("autoscaler",),
        "warning",
        "10m",
        # KEDA's own metrics are off in its default install; the conditions show what its autoscaler
        # cannot do. Without a pod it is inactive by design.
        f'label_replace(sum({_KEDA_ERRORS}) > %threshold%, "cause", "errors of KEDA", "", "")'
        f" or label_replace(max by ({_HPA}, condition) (kube_{_HPA}_status_condition{{%autoscalers%,"
        'condition=~"AbleToScale|ScalingActive",status="false"}) == 1'
        f" and on ({_HPA}) max by ({_HPA}) (kube_{_HPA}_status_current_replicas{{%autoscalers%}}) > 0"
        ', "cause", "$1 is False", "condition", "(.*)")',
        "The autoscaler of %release% has not scaled for %for% ({{ $labels.cause }})",
        "The autoscaler {{ $labels.horizontalpodautoscaler }} of %release% has failed for %for%: {{ $labels.cause "
        '}} ({{ $value | printf "%.0f" | humanize }}). The number of workers is that of the fallback, or is '
        "unchanged.",
        "selfheal-overview",
        "Autoscaler conditions",
        0,
    ),
    Alert(
        "SelfhealWorkersAtMaximum",
        ("worker", "autoscaler", "rabbitmq"),
        "warning",
        "30m",
        'sum(rabbitmq_detailed_queue_messages_ready{%broker%,queue="%queue%"}) > %threshold% and'
        " max(kube_horizontalpodautoscaler_status_desired_replicas{%autoscaler%}) >= "
        "max(kube_horizontalpodautoscaler_spec_max_replicas{%autoscaler%})",
        "{{ $value | humanize }} messages wait in %queue% with the maximum of workers",
        "{{ $value | humanize }} messages are ready in %queue%, more than %threshold%, and the autoscaler has been at "
        "its maximum for %for%.",
        "selfheal-overview",
        "Replicas",
        100,
    ),
    Alert(
        "SelfhealAutoscalerLimited",
        ("autoscaler",),
        "warning",
        "30m",
        # ScalingLimited is also true at the minimum, with an idle queue; if minimum and maximum are
        # equal, the two cases cannot be distinguished.
        f"(max by ({_HPA}) (kube_{_HPA}_status_desired_replicas{{%autoscalers%}})"
        f" >= max by ({_HPA}) (kube_{_HPA}_spec_max_replicas{{%autoscalers%}}))"
        f" > max by ({_HPA}) (kube_{_HPA}_spec_min_replicas{{%autoscalers%}})"
        f" and on ({_HPA}) max by ({_HPA}) (kube_{_HPA}_status_condition{{%autoscalers%,"
        'condition="ScalingLimited",status="true"}) == 1',
        "{{ $labels.horizontalpodautoscaler }} needs more than its {{ $value | humanize }} pods",
        "{{ $labels.horizontalpodautoscaler }} has been at its maximum of {{ $value | humanize }} for %for%, "
        "and would scale beyond it (ScalingLimited).",
        "selfheal-overview",
        "Autoscaler conditions",
    ),
    Alert(
        "SelfhealScalerMetricsMissing",
        ("worker", "keda"),
        "warning",
        "30m",
        'absent(keda_scaler_active{scaledObject="%release%-worker",namespace="%namespace%"}'
        ' or keda_scaler_active{scaledObject="%release%-worker",exported_namespace="%namespace%"})',
        "1 source of metrics is missing: KEDA, for %release%-worker",
        "Prometheus has had no series of KEDA for the ScaledObject %release%-worker for %for%: KEDA does "
        "not run, does not scale it, or its metrics are off, as they are in its default install. Whether "
        "it can read the queue is unknown.",
        "selfheal-overview",
        "Scaler",
    ),
    Alert(
        "SelfhealRolloutStuck",
        ("deployments",),
        "warning",
        "15m",
        'max by (deployment, condition) (kube_deployment_status_condition{namespace="%namespace%",'
        'deployment=~"%release%-(worker|remediator|ollama)",condition="Progressing",status="false"}'
        ' or kube_deployment_status_condition{namespace="%namespace%",'
        'deployment=~"%release%-(worker|remediator|ollama)",condition="ReplicaFailure",status="true"})'
        " == 1",
        "The rollout of {{ $labels.deployment }} is stuck ({{ $labels.condition }}, {{ $value | humanize }})",
        "{{ $labels.deployment }} has made no progress for %for% after its deadline (Progressing is "
        "False), or its pods are rejected (ReplicaFailure is True). {{ $value | humanize }} = stuck; existing "
        "pods of the previous version continue to run.",
        "selfheal-overview",
        "Replicas",
    ),
    Alert(
        "SelfhealModelServerNotReady",
        ("ollama",),
        "critical",
        "%startup%",
        # By the Deployment: evicted and failed pods remain in the API and never become ready.
        f"max(kube_deployment_status_replicas_ready{{{_OLLAMA}}}) <= %threshold%"
        f" and max(kube_deployment_spec_replicas{{{_OLLAMA}}}) > 0",
        "{{ $value | humanize }} model servers of %release% are ready",
        "{{ $value | humanize }} Ollama pods of %release% have been ready for %for%: pulling or loading "
        "the model takes too long, or fails.",
        "selfheal-model",
        "Workers without a warm model",
        0,
        night=(
            "Nothing can be answered until a model server is ready, and the time for a first load "
            "is over."
        ),
    ),
)

_NODES = (
    Alert(
        "SelfhealRemediatorNoLeader",
        _REMEDIATOR,
        "warning",
        "5m",
        # Missing metrics do not mean that none leads: see SelfhealRemediatorMetricsMissing.
        "sum(selfheal_remediator_leader{%remediator%}) <= %threshold%"
        f" or max(kube_deployment_status_replicas_ready{{{_REMEDIATORS}}}) <= %threshold%",
        "{{ $value | humanize }} remediators lead: bad nodes are not handled",
        "{{ $value | humanize }} replicas of %release%-remediator have been the leader, or ready, for "
        "%for%. No node is cordoned, drained or uncordoned.",
        "selfheal-remediation",
        "Leader",
        0,
    ),
    Alert(
        "SelfhealRemediatorMetricsMissing",
        _REMEDIATOR,
        "warning",
        "15m",
        "absent(selfheal_remediator_leader{%remediator%})",
        "1 source of metrics is missing: the pods of %release%-remediator",
        "Prometheus has had no metrics of %release%-remediator for %for%: the other alerts on nodes "
        "cannot fire, and whether it has a leader is unknown.",
        "selfheal-remediation",
        "Leader",
    ),
    Alert(
        "SelfhealRemediatorStale",
        _REMEDIATOR,
        "warning",
        "5m",
        "max(time() - selfheal_remediator_last_reconcile_timestamp_seconds{%remediator%} and on (pod)"
        " selfheal_remediator_leader{%remediator%} == 1 unless on (pod)"
        " selfheal_remediator_read_only{%remediator%} == 1) > %threshold%",
        "The leading remediator has made no plan for {{ $value | humanizeDuration }}",
        "The leader of %release%-remediator last made a plan {{ $value | humanizeDuration }} ago, more "
        "than %threshold% seconds.",
        "selfheal-remediation",
        "Age of the last plan",
        120,
    ),
    Alert(
        "SelfhealNodeWatchSilent",
        _REMEDIATOR,
        "warning",
        "5m",
        "(max(selfheal_remediator_nodes_watch_age_seconds{%remediator%} " + _LEADS + ")"
        " or min(selfheal_remediator_nodes_watch_age_seconds{%remediator%})) > %threshold%",
        "The remediator's watch of nodes has been silent for {{ $value | humanizeDuration }}",
        "The node watch of the leader of %release%-remediator (of every replica, if none leads) "
        "has been silent for {{ $value | humanizeDuration }}, more than %threshold% seconds: nothing new "
        "is cordoned meanwhile.",
        "selfheal-remediation",
        "Age of the last plan",
        120,
    ),
    Alert(
        "SelfhealRemediationPaused",
        _REMEDIATOR,
        "warning",
        "4h",
        "max(selfheal_remediator_paused{%remediator%}) == 1",
        "Remediation has been paused for %for% ({{ $value | humanize }} = paused)",
        "Somebody paused %release%-remediator at least %for% ago, or observeFirst is that "
        "long. `selfheal-remediator status` shows who and why, or until when; bad nodes stay in service.",
        "selfheal-remediation",
        "Leader",
    ),
    Alert(
        "SelfhealRemediatorReadOnly",
        _REMEDIATOR,
        "warning",
        "15m",
        "max(selfheal_remediator_read_only{%remediator%}) == 1",
        "%release%-remediator is read-only ({{ $value | humanize }} = read-only): another remediator is older",
        "A second remediator has run in this cluster for %for%. The older one acts; %release%-remediator "
        "does not. Remove one of the two.",
        "selfheal-remediation",
        "Leader",
    ),
    Alert(
        "SelfhealConfigurationRejected",
        _REMEDIATOR,
        "warning",
        "5m",
        "min(selfheal_remediator_config_last_reload_successful{%remediator%}) == 0",
        "The new configuration of %release%-remediator is rejected ({{ $value | humanize }} = rejected)",
        "The configuration file has been invalid for %for%; the previous configuration is in effect. The log names the "
        "invalid key.",
        "selfheal-remediation",
        "Leader",
    ),
    Alert(
        "SelfhealActionsFailing",
        _REMEDIATOR,
        "warning",
        "0m",
        'sum by (action) (increase(selfheal_remediator_actions_total{%remediator%,result="failed"}[30m]))'
        " > %threshold% or label_replace(sum(increase(selfheal_remediator_thread_failures_total{%remediator%}[30m]))"
        ' > %threshold%, "action", "a thread", "", "")',
        '{{ $value | printf "%.0f" | humanize }} times {{ $labels.action }} failed in 30 minutes',
        'In 30 minutes {{ $labels.action }} failed {{ $value | printf "%.0f" | humanize }} times, more than '
        "%threshold%: see the log of %release%-remediator.",
        "selfheal-remediation",
        "Actions",
        3,
    ),
    # Pages nobody: it explains alerts on pods that cannot be scheduled because of it.
    Alert(
        "SelfhealNodesCordoned",
        _REMEDIATOR,
        "info",
        "10m",
        "sum(max by (cordoned_node) (selfheal_remediator_cordoned_node_info{%remediator%})) > %threshold%",
        "{{ $value | humanize }} nodes are cordoned by %release%-remediator",
        "{{ $value | humanize }} nodes have been out of service for %for%, as configured. This explains pods "
        "that cannot be scheduled and missing workers.",
        "selfheal-remediation",
        "Nodes cordoned",
        0,
    ),
    Alert(
        "SelfhealNodeCordonedLong",
        _REMEDIATOR,
        "warning",
        "4h",
        "max by (cordoned_node, condition) (selfheal_remediator_cordoned_node_info{%remediator%}) == 1",
        "{{ $labels.cordoned_node }} has been cordoned for %for% ({{ $labels.condition }})",
        "The remediator has kept {{ $labels.cordoned_node }} cordoned because of {{ $labels.condition }} for at least "
        "%for%. A latched condition ends only with a reboot.",
        "selfheal-remediation",
        "Nodes cordoned",
    ),
    Alert(
        "SelfhealRepairFailed",
        ("remediator", "ladder"),
        "warning",
        "1m",
        "max by (cordoned_node, condition) "
        '(selfheal_remediator_cordoned_node_info{%remediator%,phase="repair_failed"}) == 1',
        "{{ $labels.cordoned_node }} could not be repaired ({{ $labels.condition }})",
        "Each step that the rule for {{ $labels.condition }} has was run on {{ $labels.cordoned_node }}, or none could "
        "be, or the node could not be verified afterwards. It stays out of service until a person "
        "repairs it.",
        "selfheal-remediation",
        "Nodes cordoned",
    ),
    Alert(
        "SelfhealObjectsMissing",
        ("remediator", "restore"),
        "warning",
        "15m",
        "max(selfheal_remediator_restore_missing_objects{%remediator%}) > %threshold%",
        "{{ $value | humanize }} objects of %release% are missing and are not made again",
        "{{ $value | humanize }} objects of %release% were deleted, and %release%-remediator has not made "
        "them again for %for%: it may not, it is paused, or restoring is off. Events on its Lease say why.",
        "selfheal-remediation",
        "Objects of the release",
        0,
    ),
    Alert(
        "SelfhealDrainBlocked",
        _REMEDIATOR,
        "warning",
        "15m",
        "max by (cause) (selfheal_remediator_drain_blocked_pods{%remediator%}) > %threshold%",
        "{{ $value | humanize }} pods block a drain ({{ $labels.cause }})",
        "{{ $value | humanize }} pods could not be evicted from a node that is being drained for %for%; cause: "
        "{{ $labels.cause }}. The node's Events name the pods and the budget.",
        "selfheal-remediation",
        "Pods that block a drain",
        0,
    ),
    Alert(
        "SelfhealDrainTooLong",
        _REMEDIATOR,
        "warning",
        "5m",
        "max(selfheal_remediator_oldest_drain_seconds{%remediator%}) > %threshold%",
        "A drain has been running for {{ $value | humanizeDuration }}",
        "The oldest unfinished drain is {{ $value | humanizeDuration }} old, more than %threshold% "
        "seconds.",
        "selfheal-remediation",
        "Running drains",
        3600,
    ),
    Alert(
        "SelfhealNoHeadroom",
        _REMEDIATOR,
        "warning",
        "0m",
        'sum(increase(selfheal_remediator_drain_duration_seconds_count{%remediator%,result="no-room"}'
        "[1h])) > %threshold%",
        '{{ $value | printf "%.0f" | humanize }} drains in an hour found no room for the pods',
        'The pods of a bad node fit on no other node: {{ $value | printf "%.0f" | humanize }} drains in the last '
        "hour ended with the node cordoned and not emptied.",
        "selfheal-remediation",
        "Drains",
        0,
    ),
    Alert(
        "SelfhealLimitReached",
        _REMEDIATOR,
        "warning",
        "15m",
        "max by (limit) (selfheal_remediator_limited_nodes{%remediator%,"
        f'limit!~"{_PACES}"}}) > %threshold%',
        "{{ $value | humanize }} bad nodes wait for the limit {{ $labels.limit }}",
        "{{ $value | humanize }} nodes need a cordon or drain that the limit {{ $labels.limit }} has deferred "
        "for %for%.",
        "selfheal-remediation",
        "Limits",
        0,
    ),
    Alert(
        "SelfhealDetectorSuspected",
        _REMEDIATOR,
        "critical",
        "1m",
        'max(selfheal_remediator_signal_rejected_nodes{%remediator%,cause="suspected-detector"})'
        " > %threshold%",
        "{{ $value | humanize }} nodes report the same at once: the detector is suspected",
        "{{ $value | humanize }} nodes reported the same condition within seconds, whatever its reasons. The remediator "
        "defers their actions: either the detector is wrong, or a change has affected many nodes.",
        "selfheal-remediation",
        "Ignored signals",
        0,
        night=(
            "Either many nodes are really failing, and nothing is done about them until "
            "somebody confirms the condition, or the detector has to be rolled back."
        ),
    ),
    Alert(
        "SelfhealDetectorSilent",
        _REMEDIATOR,
        "warning",
        "10m",
        'max(selfheal_remediator_signal_rejected_nodes{%remediator%,cause="stale-heartbeat"})'
        " > %threshold%",
        "{{ $value | humanize }} nodes have a bad condition whose detector is silent",
        "{{ $value | humanize }} nodes have a bad condition that their detector has not renewed for longer than the rule's "
        "heartbeat; it has been ignored for %for%.",
        "selfheal-remediation",
        "Ignored signals",
        0,
    ),
    # Later than the alerts on an unavailable model or broker, which inhibit it.
    Alert(
        "SelfhealPolicyPodsDown",
        _REMEDIATOR,
        "critical",
        "%afterStartup%",
        f'max by (policy) ({_POLICY_PODS},state="desired"}} {_LEADS}) > %threshold%'
        f' and max by (policy) ({_POLICY_PODS},state="healthy"}} {_LEADS}) == 0',
        "None of the {{ $value | humanize }} pods of the HealingPolicy {{ $labels.policy }} is healthy",
        "None of the {{ $value | humanize }} pods that the policy {{ $labels.policy }} selects has been healthy "
        "for %for%. `kubectl get healingpolicies` shows whether it heals, waits or gave up.",
        "selfheal-remediation",
        "Pods of policies",
        0,
        night=(
            "The application of these pods is completely down, and the restarts that the policy "
            "allows have not helped."
        ),
    ),
    Alert(
        "SelfhealPolicyGaveUp",
        _REMEDIATOR,
        "warning",
        "1m",
        'max by (policy) (selfheal_remediator_policy_state{%remediator%,state="GaveUp"} '
        f"{_LEADS}) == 1",
        "The HealingPolicy {{ $labels.policy }} gave up ({{ $value | humanize }} = gave up)",
        "The policy {{ $labels.policy }} no longer restarts pods: the restarts that it allows within 1 hour did not "
        "help, or its pods are unhealthy on every node, which restarts do not fix. It resumes after a "
        "rollout, a change of the policy, or 10 minutes of health.",
        "selfheal-remediation",
        "State of policies",
    ),
    Alert(
        "SelfhealPolicyDegraded",
        _REMEDIATOR,
        "warning",
        "15m",
        'max by (policy) (selfheal_remediator_policy_state{%remediator%,state="Degraded"} '
        f"{_LEADS}) == 1",
        "No restart can help the pods of the HealingPolicy {{ $labels.policy }} ({{ $value | humanize }} = degraded)",
        "The policy {{ $labels.policy }} has been Degraded for %for%: its pods are unhealthy in a way that "
        "restarts do not fix, or the policy itself is invalid. `kubectl get healingpolicies` shows which.",
        "selfheal-remediation",
        "State of policies",
    ),
    Alert(
        "SelfhealPolicyRolloutStuck",
        _REMEDIATOR,
        "warning",
        "5m",
        f"max by (policy) (selfheal_remediator_policy_rollouts_stuck{{%remediator%}} {_LEADS})"
        " > %threshold%",
        "{{ $value | humanize }} rollouts under the HealingPolicy {{ $labels.policy }} have stopped",
        "{{ $value | humanize }} owners of the pods that {{ $labels.policy }} selects (Deployments, "
        "StatefulSets, DaemonSets) have made no progress with their rollout past its deadline. The "
        "policy's condition RolloutStuck names them.",
        "selfheal-remediation",
        "Stuck rollouts",
        0,
    ),
    Alert(
        "SelfhealDetectorDown",
        ("detector",),
        "warning",
        "15m",
        'sum(kube_daemonset_status_number_unavailable{namespace="%detectorNamespace%",'
        'daemonset="%release%-node-problem-detector"}) > %threshold%',
        "{{ $value | humanize }} nodes have no working node-problem-detector",
        "{{ $value | humanize }} pods of %release%-node-problem-detector have been unavailable for %for%: problems "
        "on their nodes are not detected.",
        "selfheal-remediation",
        "Detectors that do not run",
        0,
    ),
)

#: Groups as Prometheus evaluates them, one after the other inside each.
GROUPS = {"slo": _SLO, "work": _WORK, "nodes": _NODES}
ALERTS = tuple(alert for group in GROUPS.values() for alert in group)
