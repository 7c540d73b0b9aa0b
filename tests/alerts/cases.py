"""For each alert: series on which it fires and recovers, and some on which it must stay quiet.

A value a minute. `at`: it fires; `over`: it fires no more. `quiet` is close to firing: just under
the threshold, too short, another release's, a counter that began again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Series = Mapping[str, str]

_NS = 'namespace="selfheal"'
_W1 = f'{_NS},pod="selfheal-worker-7d9f5-x1abc"'
_W2 = f'{_NS},pod="selfheal-worker-7d9f5-x2abc"'
#: A second release in the same namespace whose name begins alike, and one in another namespace.
_LIKE = f'{_NS},pod="selfheal-worker-two-worker-7d9f5-x1abc"'
_ELSE = 'namespace="other",pod="selfheal-worker-7d9f5-x1abc"'
#: With the nodes that they run on, which no alert is about.
_R1 = f'{_NS},pod="selfheal-remediator-5c4b9-aaaaa",node="node-1"'
_R2 = f'{_NS},pod="selfheal-remediator-5c4b9-bbbbb",node="node-3"'
_B = f'{_NS},pod="selfheal-rabbitmq-0",vhost="/"'
_BROKER_POD = f'{_NS},pod="selfheal-rabbitmq-0"'
_STATEFUL = f'kube_statefulset_status_replicas_ready{{{_NS},statefulset="selfheal-rabbitmq"}}'
_O = f'{_NS},pod="selfheal-ollama-6f7d8-ccccc"'
_KEDA = 'scaledObject="selfheal-worker",scaler="rabbitMQScaler",metric="s0-rabbitmq-feedback"'


@dataclass(frozen=True)
class Case:
    """One alert's story. `labels`: what the firing alert must say beside the common labels.

    when: what tells it from the alert's plain story; empty for that one.
    """

    alert: str
    fires: Series
    at: str
    over: str
    quiet: Series
    labels: Mapping[str, str] = field(default_factory=dict)
    says: str = ""
    when: str = ""

    @property
    def name(self) -> str:
        """Names it among all."""
        return f"{self.alert}-{self.when}" if self.when else self.alert


def _messages(pod: str, answered: str, failed: str) -> Series:
    return {
        f'selfheal_worker_messages_total{{{pod},outcome="answered"}}': answered,
        f'selfheal_worker_dead_letters_total{{{pod},reason="retries_exhausted"}}': failed,
    }


def _waits(pod: str, soon: str, all_: str) -> Series:
    return {
        f'selfheal_worker_queue_wait_seconds_bucket{{{pod},le="60.0"}}': soon,
        f"selfheal_worker_queue_wait_seconds_count{{{pod}}}": all_,
    }


def _worker(metric: str, values: str, extra: str = "", pod: str = _W1) -> Series:
    return {f"selfheal_worker_{metric}{{{pod}{extra}}}": values}


def _began(minute: int, pod: str = _W1) -> Series:
    """A process that began then and is scraped from minute 10 to 20 and no more."""
    return {f"process_start_time_seconds{{{pod}}}": f"_x10 {minute * 60}x10 _x200"}


def _once(value: int) -> str:
    """A counter that has all of its value when it is seen first, by the scrapes of `_began`."""
    return f"_x10 {value}x10 _x200"


def _remediator(metric: str, values: str, extra: str = "", pod: str = _R1) -> Series:
    return {f"selfheal_remediator_{metric}{{{pod}{extra}}}": values}


_DEGRADED = ',policy="shop/web",state="Degraded"'
_GAVE_UP = ',policy="shop/web",state="GaveUp"'


def _policy(pod: str, desired: str, healthy: str, policy: str = "shop/web") -> Series:
    name = f'selfheal_remediator_policy_pods{{{pod},policy="{policy}"'
    return {f'{name},state="desired"}}': desired, f'{name},state="healthy"}}': healthy}


def _queue(queue: str, ready: str, consumers: str) -> Series:
    return {
        f'rabbitmq_detailed_queue_messages_ready{{{_B},queue="{queue}"}}': ready,
        f'rabbitmq_detailed_queue_consumers{{{_B},queue="{queue}"}}': consumers,
    }


def _restarts(values: str, why: str = "") -> Series:
    found = {
        f'kube_pod_container_status_restarts_total{{{_W1},container="worker",uid="u"}}': values
    }
    if why:
        name = "kube_pod_container_status_last_terminated_reason"
        found[f'{name}{{{_W1},container="worker",uid="u",reason="{why}"}}'] = "1x120"
    return found


def _many(name: str, values: dict[int, str], extra: str = "", metric: str = "w") -> Series:
    """So many workers with these values, and so many with those."""
    texts = [text for count, text in values.items() for _ in range(count)]
    prefix = "selfheal_worker_" if metric else ""
    return {
        f'{prefix}{name}{{{_NS},pod="selfheal-worker-7d9f5-{n:05}"{extra}}}': text
        for n, text in enumerate(texts)
    }


def _disk(free: str, limit: str) -> Series:
    name = f"rabbitmq_disk_space_available{{}}_bytes{{{{{_BROKER_POD}}}}}"
    return {name.format(""): free, name.format("_limit"): limit}


def _condition(
    condition: str, status: str, values: str, name: str = "keda-hpa-selfheal-worker"
) -> Series:
    """A condition of a HorizontalPodAutoscaler."""
    of = f'{_NS},horizontalpodautoscaler="{name}",condition="{condition}",status="{status}"'
    return {f"kube_horizontalpodautoscaler_status_condition{{{of}}}": values}


def _autoscaler(what: str, values: str, name: str = "keda-hpa-selfheal-worker") -> Series:
    """Its numbers: current, desired, min, max."""
    kind = "spec" if what in ("min", "max") else "status"
    of = f'{_NS},horizontalpodautoscaler="{name}"'
    return {f"kube_horizontalpodautoscaler_{kind}_{what}_replicas{{{of}}}": values}


def _stuck(component: str, condition: str, status: str, values: str) -> Series:
    """A condition of a Deployment."""
    of = f'{_NS},deployment="selfheal-{component}",condition="{condition}",status="{status}"'
    return {f"kube_deployment_status_condition{{{of}}}": values}


def _deployment(component: str, wanted: str, ready: str, namespace: str = "selfheal") -> Series:
    """What kube-state-metrics says of a Deployment."""
    of = f'namespace="{namespace}",deployment="selfheal-{component}"'
    return {
        f"kube_deployment_spec_replicas{{{of}}}": wanted,
        f"kube_deployment_status_replicas_ready{{{of}}}": ready,
    }


#: A pod of the model server that the kubelet evicted, as it is kept until somebody deletes it.
_EVICTED = {
    f'kube_pod_status_ready{{{_O},uid="u1",condition="true"}}': "0x60",
    f'kube_pod_status_ready{{{_O},uid="u1",condition="false"}}': "1x60",
    f'kube_pod_status_phase{{{_O},uid="u1",phase="Failed"}}': "1x60",
    f'kube_pod_status_reason{{{_O},uid="u1",reason="Evicted"}}': "1x60",
}

_BURN = (
    Case(
        "SelfhealResultsBurnFast",
        _messages(_W1, "0+60x180", "0+30x20 600x160"),
        "15m",
        "120m",
        # 5 % fail, and the worker restarts; what no model could have answered does not count.
        {
            **_messages(_W1, "0+95x40 0+95x40", "0+5x40 0+5x40"),
            f'selfheal_worker_dead_letters_total{{{_W1},reason="malformed_json"}}': "0+500x80",
        },
        says="33.33%",
    ),
    *(
        Case(
            "SelfhealResultsBurnFast",
            {
                **_worker("messages_total", "0+60x180", ',outcome="answered"'),
                **_worker("dead_letters_total", "0+30x20 600x160", f',reason="{reason}"'),
            },
            "15m",
            "120m",
            {
                **_worker("messages_total", "0+60x180", ',outcome="answered"'),
                **_worker("dead_letters_total", "0+500x80", f',reason="{unanswerable}"'),
            },
            says="33.33%",
            when=reason,
        )
        for reason, unanswerable in zip(
            ("text_too_long", "refused_by_model", "content_filtered", "result_too_large", "new"),
            ("text_too_large", "blank_text", "bad_id", "body_too_large", "missing_text"),
            strict=True,
        )
    ),
    Case(
        "SelfhealResultsBurnSlow",
        _messages(_W1, "0+95x480", "0+5x30 150x450"),
        "30m",
        "450m",
        _messages(_W1, "0+1000x40 0+1000x40", "0+5x40 0+5x40"),
        says="5%",
    ),
    Case(
        "SelfhealQueueWaitBurnFast",
        _waits(_W1, "0x20 0+60x160", "0+60x180"),
        "15m",
        "150m",
        _waits(_W1, "0+80x40 0+80x40", "0+100x40 0+100x40"),
        says="100%",
    ),
    Case(
        "SelfhealQueueWaitBurnSlow",
        _waits(_W1, "0+80x30 2500+100x600", "0+100x630"),
        "30m",
        "500m",
        _waits(_W1, "0+96x40 0+96x40", "0+100x40 0+100x40"),
        says="20%",
    ),
)

_WORK = (
    Case(
        "SelfhealDeadLettersGrowing",
        _worker("dead_letters_total", "0+1x20 20x60", ',reason="malformed_json"'),
        "15m",
        "60m",
        {
            **_worker("dead_letters_total", "90x10 0x20 1x20", ',reason="malformed_json"'),
            **_worker("dead_letters_total", "0+9x60", ',reason="malformed_json"', _ELSE),
        },
        {"reason": "malformed_json"},
    ),
    Case(
        "SelfhealModelBreakerOpen",
        # Open and probing in turn is one outage; `model_load_seconds` says that it was warm once.
        {
            **_worker("breaker_state", "0 2 1 2 2 1 2 2 1 2 2 0x30", ',breaker="model"'),
            **_worker("model_load_seconds", "3x40", ',gen_ai_request_model="a"'),
        },
        "9m",
        "20m",
        {
            **_worker("breaker_state", "2x3 0x10 2x3 0x10", ',breaker="model"'),
            **_worker("model_load_seconds", "3x40", ',gen_ai_request_model="a"'),
            **_worker("breaker_state", "2x40", ',breaker="results"'),
            **_worker("breaker_state", "2x40", ',breaker="model"', _LIKE),
            # Its first load.
            **_worker("breaker_state", "2x40", ',breaker="model"', _W2),
            f"process_start_time_seconds{{{_W2}}}": "0x40",
        },
        says="100% of the workers",
    ),
    Case(
        "SelfhealModelBreakerOpen",
        {  # Those that come for the messages that wait have no model yet, and hide nothing.
            **_many("breaker_state", {1: "2x30 0x30", 9: "_x5 2x20 0x40"}, ',breaker="model"'),
            **_many("process_start_time_seconds", {1: "-9000x60", 9: "_x5 300x60"}, metric=""),
        },
        "15m",
        "40m",
        {
            **_many("breaker_state", {1: "2x60", 9: "0x60"}, ',breaker="model"'),
            **_many("process_start_time_seconds", {10: "-9000x60"}, metric=""),
        },
        says="100% of the workers",
        when="many",
    ),
    Case(
        "SelfhealModelBreakerOpen",
        {  # It was never there, and that is no first load any more.
            **_worker("breaker_state", "2x30 0x30", ',breaker="model"'),
            f"process_start_time_seconds{{{_W1}}}": "0x60",
        },
        "22m",
        "40m",
        {
            **_worker("breaker_state", "_x3 2x50", ',breaker="model"'),
            f"process_start_time_seconds{{{_W1}}}": "_x3 180x50",
        },
        when="never-warm",
    ),
    Case(
        "SelfhealResultsBreakerOpen",
        _worker("breaker_state", "2x12 0x30", ',breaker="results"'),
        "10m",
        "20m",
        _worker("breaker_state", "2x3 0x10 2x3 0x10", ',breaker="results"'),
    ),
    Case(
        "SelfhealResultsBreakerOpen",
        _many("breaker_state", {6: "2x12 0x30", 4: "0x40"}, ',breaker="results"'),
        "10m",
        "20m",
        _many("breaker_state", {1: "2x40", 9: "0x40"}, ',breaker="results"'),
        says="60% of the workers",
        when="many",
    ),
    Case(
        "SelfhealModelNotLoading",
        {
            **_worker("ready", "0x30 1x30"),
            **_worker("messages_total", "0x60", ',outcome="answered"'),
        },
        "20m",
        "40m",
        {  # It has answered before: then it is the breaker's or the broker's alert.
            **_worker("ready", "0x60"),
            **_worker("messages_total", "7x60", ',outcome="answered"'),
        },
    ),
    Case(
        "SelfhealNoConsumers",
        _queue("feedback", "5+1x30 0x30", "0x60"),
        "15m",
        "40m",
        {
            **_queue("feedback", "50x60", "0x8 1x52"),
            **_queue("feedback.results", "50x60", "0x60"),
        },
        says="20 messages",
    ),
    Case(
        "SelfhealNoConsumers",
        _queue("feedback", "1x60", "0x40 1x20"),
        "15m",
        "50m",
        _queue("feedback", "0x60", "0x60"),
        says="1 messages",
        when="one",
    ),
    Case(
        "SelfhealResultsNotRead",
        _queue("feedback.results", "2000x60 2000x30", "0x60 1x30"),
        "40m",
        "70m",
        {**_queue("feedback.results", "900x60", "0x60"), **_queue("feedback", "2000x60", "0x60")},
        says="2k results",
    ),
    Case(
        "SelfhealResultsNotRead",
        _queue("feedback.results", "1200000x60 0x30", "0x90"),
        "40m",
        "70m",
        _queue("feedback.results", "1200000x60 0x30", "1x90"),
        says="1.2M results",
        when="millions",
    ),
    Case(
        "SelfhealBrokerUnreachable",
        _worker("broker_connected", "1 0x12 1x20"),
        "8m",
        "20m",
        {
            **_worker("broker_connected", "1 0x3 1 0x3 1x20"),
            **_worker("broker_connected", "0x40", "", _ELSE),
        },
    ),
    Case(
        "SelfhealBrokerUnreachable",
        _many("broker_connected", {6: "1 0x12 1x20", 4: "1x40"}),
        "8m",
        "20m",
        _many("broker_connected", {1: "0x40", 9: "1x40"}),
        says="60% of the workers",
        when="many",
    ),
    Case(
        "SelfhealBrokerUnreachable",
        _many("broker_connected", {2: "0x12 1x20"}),
        "8m",
        "20m",
        _many("broker_connected", {1: "0x40", 2: "1x40"}),
        says="100% of the workers",
        when="two",
    ),
    Case(
        "SelfhealBrokerDown",
        # Nobody is connected because nobody is there.
        {_STATEFUL: "1x5 0x20 1x20", **_deployment("worker", "0x60", "0x60")},
        "15m",
        "35m",
        {_STATEFUL: "1x5 0x3 1x20"},
        says="0 nodes",
    ),
    Case(
        "SelfhealBrokerDown",
        {f"up{{{_BROKER_POD}}}": "1x5 0x20 1x20"},
        "15m",
        "35m",
        # It is ready, and only the scrape does not reach it.
        {f"up{{{_BROKER_POD}}}": "0x40", _STATEFUL: "1x40"},
        when="by-its-scrape",
    ),
    Case(
        "SelfhealBrokerDown",
        {_STATEFUL: "0x30 1x20", **_worker("broker_connected", "0x30 1x20")},
        "15m",
        "40m",
        # A worker works with it: its probe fails, or a release's own metrics of it do.
        {_STATEFUL: "0x40", f"up{{{_BROKER_POD}}}": "0x40", **_worker("broker_connected", "1x40")},
        when="with-workers",
    ),
    Case(
        "SelfhealBrokerDown",
        {f"up{{{_BROKER_POD}}}": "1x5 0x20 1x20", _STATEFUL: "_x50"},
        "15m",
        "35m",
        # Two of three nodes are away, and the third works.
        {
            f"up{{{_BROKER_POD}}}": "0x40",
            f"up{{{_BROKER_POD.replace('-0', '-1')}}}": "0x40",
            f"up{{{_BROKER_POD.replace('-0', '-2')}}}": "1x40",
        },
        when="of-several-nodes",
    ),
    Case(
        "SelfhealBrokerMetricsMissing",
        {**_queue("feedback", "5x5 _x30 5x30", "0x5 _x30 0x30")},
        "30m",
        "50m",
        # Empty, nobody consumes, and reported so.
        {**_queue("feedback", "0x10 _x10 0x60", "0x60")},
        says="the queue feedback",
    ),
    Case(
        "SelfhealBrokerDiskLow",
        _disk("1000000000x5 90000000x30 1000000000x30", "50000000x70"),
        "30m",
        "60m",
        _disk("110000000x60", "50000000x60"),
        says="85.83MiB",
    ),
    Case(
        "SelfhealBrokerDiskLow",
        # 2 MB a minute: from 450 MB to the limit of 50 MB in 200 minutes.
        _disk("590000000-2000000x90 1000000000x90", "50000000x180"),
        "75m",
        "170m",
        # Much is left, however fast it goes; and slowly enough for the morning.
        _disk("9000000000-2000000x90", "50000000x90"),
        when="soon",
    ),
    Case(
        "SelfhealBrokerDiskLow",
        _disk("60000000x30 1000000000x30", "50000000x60"),
        "20m",
        "50m",
        _disk("400000000-200000x90", "50000000x90"),
        when="slowly",
    ),
    Case(
        "SelfhealBrokerBlocked",
        _worker("broker_blocked", "0 1x12 0x20"),
        "8m",
        "20m",
        _worker("broker_blocked", "0 1x3 0 1x3 0x20"),
    ),
    Case(
        "SelfhealHandlersHang",
        _worker("handler_hangs_total", "0 1 3 5x60"),
        "10m",
        "50m",
        _worker("handler_hangs_total", "8x10 0 1 2x40"),
    ),
    Case(
        "SelfhealPodsRestarting",
        _restarts("0+1x5 5x120"),
        "10m",
        "100m",
        _restarts("3x10 0 1 2x60"),
        {"container": "worker"},
    ),
    Case(
        "SelfhealOutOfMemory",
        _restarts("0x5 1x100", "OOMKilled"),
        "10m",
        "60m",
        # Another reason; and an old kill without a new restart would be `0x60`.
        _restarts("0x5 1x100", "Error"),
        {"container": "worker"},
    ),
    Case(
        "SelfhealPodsUnschedulable",
        {f'kube_pod_status_unschedulable{{{_W1},uid="u"}}': "1x30 0x20"},
        "20m",
        "40m",
        {f'kube_pod_status_unschedulable{{{_W1},uid="u"}}': "1x10 _x20 1x10"},
    ),
    Case(
        "SelfhealWorkerMetricsMissing",
        {
            f'kube_deployment_status_replicas_ready{{{_NS},deployment="selfheal-worker"}}': "2x60",
            **_worker("ready", "_x30 1x30"),
        },
        "20m",
        "40m",
        {  # Scaled to zero: no workers and no metrics.
            f'kube_deployment_status_replicas_ready{{{_NS},deployment="selfheal-worker"}}': "0x60",
        },
        says="2 workers",
    ),
    Case(
        "SelfhealStateMetricsMissing",
        _deployment("worker", "2x5 _x30 2x30", "2x5 _x30 2x30"),
        "30m",
        "50m",
        _deployment("worker", "0x60", "0x60"),  # Scaled to zero, and reported so.
        says="kube-state-metrics",
    ),
    Case(
        "SelfhealScalerFailing",
        {  # Scraped through KEDA's own pod, whose namespace took the label's place.
            "keda_scaler_detail_errors_total{"
            f'namespace="keda",exported_namespace="selfheal",{_KEDA}}}': "0+2x25 50x60"
        },
        "20m",
        "60m",
        {f"keda_scaler_detail_errors_total{{{_NS},{_KEDA}}}": "50x10 0x20 1 1x30"},
        says="errors of KEDA",
    ),
    *(
        Case(
            "SelfhealScalerFailing",
            {
                **_condition(condition, "false", "0x5 1x30 0x30", autoscaler),
                **_autoscaler("current", "2x70", autoscaler),
            },
            "20m",
            "60m",
            {  # At zero there is nothing that it could scale: it is inactive by design.
                **_condition(condition, "false", "1x70", autoscaler),
                **_condition(condition, "true", "0x70", autoscaler),
                **_autoscaler("current", "0x70", autoscaler),
                **_condition(condition, "false", "1x70", "another"),
                **_autoscaler("current", "2x70", "another"),
            },
            {"horizontalpodautoscaler": autoscaler},
            says=f"{condition} is False",
            when=f"{condition}-{autoscaler}",
        )
        for condition in ("ScalingActive", "AbleToScale")
        for autoscaler in ("keda-hpa-selfheal-worker", "selfheal-ollama")
    ),
    Case(
        "SelfhealScalerMetricsMissing",
        {f"keda_scaler_active{{{_NS},{_KEDA}}}": "1x5 _x60 0x30"},
        "50m",
        "80m",
        {  # Idle, and scraped through KEDA's own pod.
            f'keda_scaler_active{{namespace="keda",exported_namespace="selfheal",{_KEDA}}}': "0x90"
        },
        says="KEDA",
    ),
    *(
        Case(
            "SelfhealAutoscalerLimited",
            {
                **_autoscaler("desired", "5x60 3x30", autoscaler),
                **_autoscaler("min", "1x90", autoscaler),
                **_autoscaler("max", "5x90", autoscaler),
                **_condition("ScalingLimited", "true", "1x60 0x30", autoscaler),
            },
            "40m",
            "70m",
            {  # Limited by its minimum, because there is nothing to do.
                **_autoscaler("desired", "1x90", autoscaler),
                **_autoscaler("min", "1x90", autoscaler),
                **_autoscaler("max", "5x90", autoscaler),
                **_condition("ScalingLimited", "true", "1x90", autoscaler),
            },
            {"horizontalpodautoscaler": autoscaler},
            says="5 pods",
            when=autoscaler,
        )
        for autoscaler in ("keda-hpa-selfheal-worker", "selfheal-worker", "selfheal-ollama")
    ),
    Case(
        "SelfhealAutoscalerLimited",
        {
            **_autoscaler("desired", "4x60 2x30"),
            **_autoscaler("min", "0x90"),
            **_autoscaler("max", "4x90"),
            **_condition("ScalingLimited", "true", "1x90"),
        },
        "40m",
        "70m",
        {  # A number that is fixed is the minimum and the maximum; and just what was wanted.
            **_autoscaler("desired", "3x90"),
            **_autoscaler("min", "3x90"),
            **_autoscaler("max", "3x90"),
            **_condition("ScalingLimited", "true", "1x90"),
            **_autoscaler("desired", "5x90", "selfheal-ollama"),
            **_autoscaler("min", "1x90", "selfheal-ollama"),
            **_autoscaler("max", "5x90", "selfheal-ollama"),
            **_condition("ScalingLimited", "true", "0x90", "selfheal-ollama"),
        },
    ),
    *(
        Case(
            "SelfhealRolloutStuck",
            _stuck(component, *stuck, "0x5 1x30 0x30"),
            "30m",
            "60m",
            {
                **_stuck(component, *stuck, "1x10 0x50"),
                **_stuck(component, "Progressing", "true", "1x60"),
                **_stuck(component, "Progressing", "unknown", "0x60"),
                **_stuck(component, "Available", "false", "1x60"),
                **_stuck("two-worker", *stuck, "1x60"),
            },
            {"deployment": f"selfheal-{component}", "condition": stuck[0]},
            when=f"{component}-{stuck[0]}",
        )
        for component in ("worker", "remediator", "ollama")
        for stuck in (("Progressing", "false"), ("ReplicaFailure", "true"))
    ),
    Case(
        "SelfhealRolloutStuck",
        _stuck("worker", "Progressing", "false", "0x5 1x30 0x30"),
        "30m",
        "60m",
        # Scaled to zero.
        {
            **_stuck("worker", "Progressing", "false", "0x60"),
            **_deployment("worker", "0x60", "0x60"),
        },
    ),
    Case(
        "SelfhealWorkersAtMaximum",
        {
            **_queue("feedback", "500x60 10x30", "5x90"),
            "kube_horizontalpodautoscaler_status_desired_replicas{"
            f'{_NS},horizontalpodautoscaler="keda-hpa-selfheal-worker"}}': "5x90",
            "kube_horizontalpodautoscaler_spec_max_replicas{"
            f'{_NS},horizontalpodautoscaler="keda-hpa-selfheal-worker"}}': "5x90",
        },
        "40m",
        "70m",
        {
            **_queue("feedback", "500x90", "5x90"),
            "kube_horizontalpodautoscaler_status_desired_replicas{"
            f'{_NS},horizontalpodautoscaler="keda-hpa-selfheal-worker"}}': "4x90",
            "kube_horizontalpodautoscaler_spec_max_replicas{"
            f'{_NS},horizontalpodautoscaler="keda-hpa-selfheal-worker"}}': "5x90",
        },
    ),
    Case(
        "SelfhealModelServerNotReady",
        {**_deployment("ollama", "1x60", "0x40 1x20"), **_EVICTED},
        "30m",
        "50m",
        # What was evicted stays behind for ever, never ready, beside the one that took its place.
        {**_deployment("ollama", "1x60", "0x15 1x40"), **_EVICTED},
        says="0 model servers",
    ),
    Case(
        "SelfhealModelServerNotReady",
        _deployment("ollama", "3x60", "0x40 1x20"),
        "30m",
        "50m",
        {  # One of three answers; and a server that was scaled to none on purpose.
            **_deployment("ollama", "3x60", "1x60"),
            **_deployment("ollama", "0x60", "0x60", "other"),
        },
        when="several",
    ),
    Case(
        "SelfhealModelServerNotReady",
        _deployment("ollama", "1x60", "0x40 1x20"),
        "30m",
        "50m",
        _deployment("ollama", "0x60", "0x60"),
        when="switched-off",
    ),
)

#: Workers of a queue that is empty most of the time: their work is done before the first scrape.
_COLD = (
    Case(
        "SelfhealResultsBurnFast",
        {**_messages(_W1, _once(500), _once(500)), **_began(9)},
        "15m",
        "120m",
        # One of six fails, which is a share beyond every budget and no reason to wake anybody.
        {**_messages(_W1, _once(5), _once(1)), **_began(9)},
        says="50%",
        when="cold",
    ),
    Case(
        "SelfhealQueueWaitBurnFast",
        {**_waits(_W1, _once(0), _once(500)), **_began(9)},
        "15m",
        "120m",
        {**_waits(_W1, _once(0), _once(3)), **_began(9)},
        says="100%",
        when="cold",
    ),
    Case(
        "SelfhealDeadLettersGrowing",
        {
            **_worker("dead_letters_total", _once(400), ',reason="malformed_json"'),
            **_began(9),
        },
        "15m",
        "55m",
        {  # It ran for long before it was scraped: who knows when these were.
            **_worker("dead_letters_total", _once(400), ',reason="malformed_json"'),
            **_began(-120),
        },
        {"reason": "malformed_json"},
        says="400 dead letters",
        when="cold",
    ),
    Case(
        "SelfhealDeadLettersGrowing",
        {  # A container that restarted: what was counted before counts too.
            **_worker("dead_letters_total", "0+4x12 5x10 _x90", ',reason="blank_text"'),
            f"process_start_time_seconds{{{_W1}}}": "0x12 750x10 _x90",
        },
        "15m",
        "60m",
        {
            **_worker("dead_letters_total", "400x12 5x10 _x90", ',reason="blank_text"'),
            f"process_start_time_seconds{{{_W1}}}": "-3600x12 750x10 _x90",
        },
        {"reason": "blank_text"},
        when="restarted",
    ),
    Case(
        "SelfhealHandlersHang",
        {**_worker("handler_hangs_total", _once(8)), **_began(9)},
        "15m",
        "55m",
        {**_worker("handler_hangs_total", _once(8)), **_began(-120)},
        says="8 model calls",
        when="cold",
    ),
)

_NODES = (
    Case(
        "SelfhealRemediatorNoLeader",
        {
            **_remediator("leader", "1x5 0x20 0x30"),
            **_remediator("leader", "0x5 0x20 1x30", "", _R2),
        },
        "15m",
        "40m",
        {  # A hand-over of a minute; the first pod is gone after it.
            **_remediator("leader", "1x10 0 _x40"),
            **_remediator("leader", "0x11 1x40", "", _R2),
        },
    ),
    Case(
        "SelfhealRemediatorNoLeader",
        # No pod of it runs, so that nobody says who leads.
        _deployment("remediator", "2x60", "2x5 0x20 2x30"),
        "15m",
        "40m",
        _deployment("remediator", "2x60", "2x60"),  # It is not scraped: who knows.
        when="no-pods",
    ),
    Case(
        "SelfhealRemediatorMetricsMissing",
        _remediator("leader", "1x5 _x30 1x30"),
        "30m",
        "50m",
        {**_remediator("leader", "1x10 _x10 1x60"), **_remediator("leader", "_x20 1x60", "", _R2)},
        says="selfheal-remediator",
    ),
    Case(
        "SelfhealRemediatorStale",
        {
            **_remediator("last_reconcile_timestamp_seconds", "0+60x5 300x20 1560+60x30"),
            **_remediator("leader", "1x60"),
        },
        "20m",
        "35m",
        {  # The standby never makes plans; the leader does.
            **_remediator("last_reconcile_timestamp_seconds", "0+60x60"),
            **_remediator("leader", "1x60"),
            **_remediator("last_reconcile_timestamp_seconds", "0x60", "", _R2),
            **_remediator("leader", "0x60", "", _R2),
        },
        says="15m 0s",
    ),
    Case(
        "SelfhealNodeWatchSilent",
        {  # The leader is deaf; a standby that hears the nodes does not hide it.
            **_remediator("nodes_watch_age_seconds", "5+60x15 5x20"),
            **_remediator("nodes_watch_age_seconds", "9x40", "", _R2),
            **_remediator("leader", "1x40"),
            **_remediator("leader", "0x40", "", _R2),
        },
        "12m",
        "20m",
        {  # The leader hears something: it is the other one's connection.
            **_remediator("nodes_watch_age_seconds", "5+60x30"),
            **_remediator("nodes_watch_age_seconds", "9x30", "", _R2),
            **_remediator("leader", "0x30"),
            **_remediator("leader", "1x30", "", _R2),
        },
    ),
    Case(
        "SelfhealRemediationPaused",
        _remediator("paused", "0x10 1x300 0x60"),
        "260m",
        "320m",
        _remediator("paused", "1x200 0x10 1x200"),
    ),
    Case(
        "SelfhealRemediatorReadOnly",
        _remediator("read_only", "1x30 0x20"),
        "20m",
        "40m",
        _remediator("read_only", "1x10 0x40"),
    ),
    Case(
        "SelfhealConfigurationRejected",
        _remediator("config_last_reload_successful", "1x5 0x20 1x20"),
        "15m",
        "35m",
        _remediator("config_last_reload_successful", "1x5 0x3 1x20"),
    ),
    Case(
        "SelfhealActionsFailing",
        _remediator("actions_total", "0 2 4 6x60", ',action="cordon",result="failed"'),
        "10m",
        "50m",
        {
            **_remediator("actions_total", "9x10 0 2x40", ',action="cordon",result="failed"'),
            **_remediator("actions_total", "0+9x50", ',action="cordon",result="conflict"'),
        },
        {"action": "cordon"},
    ),
    Case(
        "SelfhealActionsFailing",
        _remediator("thread_failures_total", "0 2 4 6x60"),
        "10m",
        "50m",
        _remediator("thread_failures_total", "9x10 0 2x40"),
        {"action": "a thread"},
        says="a thread failed",
        when="threads",
    ),
    Case(
        "SelfhealNodesCordoned",
        {  # Two replicas may name one node, and a phase may follow another.
            **_remediator(
                "cordoned_node_info",
                "1x14 _x60",
                ',cordoned_node="node-2",condition="KernelDeadlock",phase="draining"',
            ),
            **_remediator(
                "cordoned_node_info",
                "_x14 1x16 _x30",
                ',cordoned_node="node-2",condition="KernelDeadlock",phase="drained"',
                _R2,
            ),
            **_remediator(
                "cordoned_node_info",
                "_x14 1x16 _x30",
                ',cordoned_node="node-4",condition="KernelDeadlock",phase="cordoned"',
                _R2,
            ),
        },
        "20m",
        "45m",
        _remediator(  # A short repair is over before anything is explained by it.
            "cordoned_node_info",
            "_x12 1x8 _x30",
            ',cordoned_node="node-2",condition="KernelDeadlock",phase="drained"',
        ),
        says="2 nodes",
    ),
    Case(
        "SelfhealNodeCordonedLong",
        {  # Neither a new phase nor a new leader restarts the time.
            **_remediator(
                "cordoned_node_info",
                "1x60 _x300",
                ',cordoned_node="node-2",condition="KernelDeadlock",phase="draining"',
            ),
            **_remediator(
                "cordoned_node_info",
                "_x60 1x240 _x60",
                ',cordoned_node="node-2",condition="KernelDeadlock",phase="drained"',
                _R2,
            ),
        },
        "250m",
        "330m",
        _remediator(
            "cordoned_node_info",
            "1x200 _x10 1x200",
            ',cordoned_node="node-2",condition="KernelDeadlock",phase="drained"',
        ),
        {"cordoned_node": "node-2", "condition": "KernelDeadlock"},
        says="node-2",
    ),
    Case(
        "SelfhealRepairFailed",
        {  # A new leader does not end it.
            **_remediator(
                "cordoned_node_info",
                "_x10 1x20 _x60",
                ',cordoned_node="node-2",condition="KernelDeadlock",phase="repair_failed"',
            ),
            **_remediator(
                "cordoned_node_info",
                "_x31 1x20 _x40",
                ',cordoned_node="node-2",condition="KernelDeadlock",phase="repair_failed"',
                _R2,
            ),
        },
        "15m",
        "60m",
        _remediator(
            "cordoned_node_info",
            "1x60",
            ',cordoned_node="node-2",condition="KernelDeadlock",phase="repairing"',
        ),
        {"cordoned_node": "node-2", "condition": "KernelDeadlock"},
        says="node-2",
    ),
    Case(
        "SelfhealObjectsMissing",
        {  # A new leader does not end it.
            **_remediator("restore_missing_objects", "0x5 2x15 0x60"),
            **_remediator("restore_missing_objects", "0x20 2x20 0x40", pod=_R2),
        },
        "25m",
        "45m",
        _remediator("restore_missing_objects", "0x5 2x10 0x5 2x10 0x60"),
        says="2 objects",
    ),
    Case(
        "SelfhealDrainBlocked",
        _remediator("drain_blocked_pods", "2x30 _x20", ',cause="pdb"'),
        "20m",
        "45m",
        _remediator("drain_blocked_pods", "2x10 _x6 1x10 _x30", ',cause="pdb"'),
        {"cause": "pdb"},
        says="2 pods",
    ),
    Case(
        "SelfhealDrainTooLong",
        _remediator("oldest_drain_seconds", "0+60x80 0x20"),
        "70m",
        "90m",
        _remediator("oldest_drain_seconds", "0+60x59 0+60x59"),
        says="1h 10m 0s",
    ),
    Case(
        "SelfhealNoHeadroom",
        _remediator("drain_duration_seconds_count", "0x5 1x100", ',result="no-room"'),
        "10m",
        "90m",
        {
            **_remediator("drain_duration_seconds_count", "0+1x100", ',result="succeeded"'),
            **_remediator("drain_duration_seconds_count", "4x20 0x80", ',result="no-room"'),
        },
    ),
    Case(
        "SelfhealLimitReached",
        _remediator("limited_nodes", "3x30 _x20", ',limit="maxUnavailable"'),
        "20m",
        "45m",
        _remediator("limited_nodes", "3x60", ',limit="maxDraining"'),
        {"limit": "maxUnavailable"},
        says="3 bad nodes",
    ),
    Case(
        "SelfhealDetectorSuspected",
        _remediator("signal_rejected_nodes", "_x3 40x10 _x20", ',cause="suspected-detector"'),
        "8m",
        "25m",
        _remediator("signal_rejected_nodes", "40x30", ',cause="stale-heartbeat"'),
        says="40 nodes",
    ),
    Case(
        "SelfhealDetectorSilent",
        _remediator("signal_rejected_nodes", "1x30 _x20", ',cause="stale-heartbeat"'),
        "20m",
        "45m",
        _remediator("signal_rejected_nodes", "1x8 _x8 1x8 _x20", ',cause="stale-heartbeat"'),
    ),
    Case(
        "SelfhealPolicyPodsDown",
        {**_policy(_R1, "3x60", "3x5 0x35 2x30"), **_remediator("leader", "1x60")},
        "35m",
        "50m",
        {  # One with nothing to do, one that heals in time, and what a leader of before last said.
            **_policy(_R1, "0x60", "0x60", "shop/idle"),
            **_policy(_R1, "2x60", "2x12 0x24 2x30", "shop/heals"),
            **_policy(_R1, "2x60", "2x60", "shop/web"),
            **_policy(_R2, "2x60", "0x60", "shop/web"),
            **_remediator("leader", "1x60"),
            **_remediator("leader", "0x60", "", _R2),
        },
        {"policy": "shop/web"},
        says="None of the 3 pods",
    ),
    Case(
        "SelfhealPolicyGaveUp",
        {
            **_remediator("policy_state", "_x5 1x20 _x40", _GAVE_UP),
            **_remediator("leader", "1x60"),
        },
        "10m",
        "40m",
        {
            **_remediator("policy_state", "1x60", ',policy="shop/web",state="Throttled"'),
            **_remediator("leader", "1x60"),
            **_remediator("policy_state", "1x60", _GAVE_UP, _R2),
            **_remediator("leader", "0x60", "", _R2),
        },
        {"policy": "shop/web"},
        says="shop/web gave up",
    ),
    Case(
        "SelfhealPolicyDegraded",
        {
            **_remediator("policy_state", "_x5 1x30 _x40", _DEGRADED),
            **_remediator("leader", "1x80"),
        },
        "30m",
        "60m",
        {  # Not for long; one that heals; and what a leader of before last said.
            **_remediator("policy_state", "1x10 _x6 1x8 _x40", _DEGRADED),
            **_remediator("policy_state", "1x80", ',policy="shop/api",state="Healing"'),
            **_remediator("leader", "1x80"),
            **_remediator("policy_state", "1x80", _DEGRADED, _R2),
            **_remediator("leader", "0x80", "", _R2),
        },
        {"policy": "shop/web"},
        says="No restart can help",
    ),
    Case(
        "SelfhealPolicyRolloutStuck",
        {
            **_remediator("policy_rollouts_stuck", "0x5 1x30 0x40", ',policy="shop/web"'),
            **_remediator("leader", "1x80"),
        },
        "20m",
        "60m",
        {  # A moment, none, and what a leader of before last said.
            **_remediator("policy_rollouts_stuck", "0x16 1x3 0x40", ',policy="shop/web"'),
            **_remediator("policy_rollouts_stuck", "0x80", ',policy="shop/api"'),
            **_remediator("leader", "1x80"),
            **_remediator("policy_rollouts_stuck", "2x80", ',policy="shop/web"', _R2),
            **_remediator("leader", "0x80", "", _R2),
        },
        {"policy": "shop/web"},
        says="1 rollouts",
    ),
    Case(
        "SelfhealDetectorDown",
        {
            "kube_daemonset_status_number_unavailable{"
            'namespace="selfheal-node-problem-detector",'
            'daemonset="selfheal-node-problem-detector"}': "1x30 0x20"
        },
        "20m",
        "40m",
        {
            "kube_daemonset_status_number_unavailable{"
            'namespace="selfheal-node-problem-detector",'
            'daemonset="selfheal-node-problem-detector"}': "1x10 0x40",
            'kube_daemonset_status_number_unavailable{namespace="x",daemonset="y"}': "9x60",
        },
    ),
)


def at_maximum(autoscaler: str, desired: int) -> Series:
    """Many messages wait, and an autoscaler of that name wants so many of at most 5."""
    return {
        **_queue("feedback", "500x90", "5x90"),
        **_autoscaler("desired", f"{desired}x90", autoscaler),
        **_autoscaler("max", "5x90", autoscaler),
    }


#: Nothing is answered, and nothing is taken in time.
OUTAGE = {**_messages(_W1, "0x60", "0+30x60"), **_waits(_W1, "0x60", "0+30x60")}
CASES = {case.name: case for group in (_BURN, _WORK, _COLD, _NODES) for case in group}
#: Alerts that fire when there is nothing at all: they are there to see just that.
FIRE_ON_NOTHING = {
    f"Selfheal{source}MetricsMissing" for source in ("Remediator", "State", "Broker", "Scaler")
}
