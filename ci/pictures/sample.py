"""Three hours of one release, made up: two waves of messages, two bad nodes, a model that fails.

It has series of everything that the dashboards ask for, so that each panel can be seen without a
cluster. Nothing in it is measured. The same series are made each time; the time is fixed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ci.pictures.sample_nodes import NODES, alerts, healing, nodes, remediator
from ci.pictures.series import (
    COUNT,
    GIB,
    MIB,
    NAMESPACE,
    RELEASE,
    START,
    STEP,
    Course,
    Night,
    Values,
    at_step,
    between,
    each,
    grown,
    noise,
    target,
    times,
)

_WORKER = {"gen_ai_operation_name": "chat"}
_MODEL = {
    "gen_ai_provider_name": "ollama",
    "gen_ai_request_model": "qwen3:4b",
    "model_version": "359d7dd4bcda",
}
_FALLBACK = {
    "gen_ai_provider_name": "builtin",
    "gen_ai_request_model": "emotion",
    "model_version": "1",
}
_PER_WORKER = 60.0  # messages that a worker answers in one step
_MOST = 4  # workers
_OUTAGE = range(250, 262)  # the model server does not answer
_DURATION = tuple(0.01 * 2**n for n in range(14))
_WAIT = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
_TOKENS = tuple(float(4**n) for n in range(9))


@dataclass
class Pod:
    """A worker's pod: the steps at which it is there, and what it answered at each."""

    name: str
    node: str
    first: int
    last: int = COUNT
    answered: dict[int, float] = field(default_factory=dict)


def _arriving(step: int) -> float:
    for first, last, most in ((20, 120, 190.0), (206, 400, 170.0)):
        if first <= step < last:
            part = math.sin(math.pi * (step - first) / (last - first))
            return most * part * (1 + 0.15 * noise(step))
    return 0.0


@dataclass
class Work:
    """What happened to the queue and its workers."""

    depth: list[float] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    pods: list[Pod] = field(default_factory=list)


def _work() -> Work:
    """KEDA's scaling in short: one worker for 20 messages, none after ten steps without any."""
    work = Work()
    running: list[Pod] = []
    names = iter(
        f"{RELEASE}-worker-7d9f5c6b8-{a}{b}"
        for a, b in itertools.product("xkqzv", ("2m4d", "8rlp"))
    )
    depth, quiet = 0.0, 0
    for step in range(COUNT):
        depth += _arriving(step)
        quiet = 0 if depth > 0 else quiet + 1
        wanted = max(len(running), min(_MOST, math.ceil(depth / 20))) if quiet < 10 else 0
        if step == 112:  # its node is drained
            running[0].last = step
            running.pop(0)
        for gone in running[wanted:]:
            gone.last = step
        running = running[:wanted]
        while len(running) < wanted:
            running.append(Pod(next(names), NODES[len(work.pods) % 3 + 1], step))
            work.pods.append(running[-1])
        ready = [pod for pod in running if step > pod.first]
        power = _PER_WORKER * (0.3 if step in _OUTAGE else 1.0)
        done = min(depth, power * len(ready))
        for pod in ready:
            pod.answered[step] = done / len(ready)
        depth -= done
        work.depth.append(depth)
        work.wanted.append(wanted)
    return work


def write(path: Path) -> None:
    """Writes the series as OpenMetrics."""
    night, work = Night(), _work()
    for pod in work.pods:
        _worker(night, pod, work)
    _queues(night, work)
    _autoscaling(night, work)
    remediator(night)
    healing(night)
    nodes(night)
    _resources(night, work)
    alerts(night)
    path.write_text(night.text(), encoding="utf-8")


def _worker(night: Night, pod: Pod, work: Work) -> None:
    of = target(pod.name, "worker")
    alive = range(pod.first, pod.last)
    seed = len(pod.name) + pod.first

    def during(course: Course) -> list[float | None]:
        return [at_step(course, step) if step in alive else None for step in range(COUNT)]

    def answers(step: int) -> float:
        return pod.answered.get(step, 0.0)

    bad = during(lambda s: answers(s) * (0.25 if s in _OUTAGE else 0.002))
    outcomes = {"answered": 1.0, "retried": 0.01, "dead_lettered": 0.004, "requeued": 0.001}
    for outcome, share in outcomes.items():
        rates = times(during(answers), share)
        night.add("selfheal_worker_messages_total", grown(rates), outcome=outcome, **of)
    for reason, share in {"retries_exhausted": 0.003, "blank_text": 0.001}.items():
        rates = times(during(answers), share)
        night.add("selfheal_worker_dead_letters_total", grown(rates), reason=reason, **of)
    duration = "selfheal_worker_process_duration_seconds"
    rates = during(answers)
    slow = [1.6 if step in _OUTAGE else 0.9 + 0.2 * noise(step, seed) for step in range(COUNT)]
    night.histogram(duration, rates, lambda s: slow[s], _DURATION, **of)
    wait = "selfheal_worker_queue_wait_seconds"
    night.histogram(wait, rates, lambda s: 0.4 + work.depth[s] / 4, _WAIT, **of)
    _calls(night, during, answers, bad, slow, of)
    gauges: dict[str, Course] = {
        "in_flight": lambda s: round(min(16, answers(s) / 4 * (1 + 0.2 * noise(s, seed)))),
        "concurrency": 16,
        "ready": lambda s: float(s > pod.first),
        "hung_handlers": lambda s: float(s in (252, 253)),
        "handler_hangs_total": lambda s: float(s >= 252),
        "broker_connected": lambda s: float(s > pod.first),
        "broker_blocked": 0.0,
        "broker_disconnects_total": lambda s: float(s >= 225),
        "degraded_total": lambda s: sum(answers(one) * 0.5 for one in _OUTAGE if one <= s),
    }
    for name, value in gauges.items():
        night.add(f"selfheal_worker_{name}", during(value), **of)
    for breaker in ("model", "results"):
        state = during(lambda s: {250: 0, 261: 1}.get(s, 2.0 if s in _OUTAGE else 0.0))
        closed = during(0.0)
        values = state if breaker == "model" else closed
        night.add("selfheal_worker_breaker_state", values, breaker=breaker, **of)
    started = during(START + STEP * pod.first - 5.0)
    night.add("process_start_time_seconds", started, **of)
    used = during(lambda s: 1.2 + answers(s) * 0.12)
    night.add("process_cpu_seconds_total", grown(used), **of)
    memory = during(lambda s: (58 + 3 * noise(s, seed)) * MIB)
    night.add("process_resident_memory_bytes", memory, **of)


def _calls(
    night: Night,
    during: Callable[[Course], list[float | None]],
    answers: Callable[[int], float],
    bad: Values,
    slow: Sequence[float],
    of: Mapping[str, str],
) -> None:
    calls = "gen_ai_client_operation_duration_seconds"
    good = during(lambda s: answers(s) * (0.5 if s in _OUTAGE else 1.0))
    helped = during(lambda s: answers(s) * (0.5 if s in _OUTAGE else 0.0))
    night.histogram(
        calls, good, lambda s: slow[s] * 0.9, _DURATION, error_type="", **_MODEL, **_WORKER, **of
    )
    night.histogram(calls, helped, 0.02, _DURATION, error_type="", **_FALLBACK, **_WORKER, **of)
    for error in ("ModelUnavailableError", "BadOutputError"):
        values = bad if error == "ModelUnavailableError" else during(lambda s: answers(s) * 0.001)
        night.histogram(calls, values, 4.0, _DURATION, error_type=error, **_MODEL, **_WORKER, **of)
    for kind, middle in (("input", 310.0), ("output", 42.0)):
        night.histogram(
            "gen_ai_client_token_usage",
            good,
            middle,
            _TOKENS,
            gen_ai_token_type=kind,
            **_MODEL,
            **_WORKER,
            **of,
        )
    name = {key: _MODEL[key] for key in ("gen_ai_provider_name", "gen_ai_request_model")}
    running = during(lambda s: round(answers(s) / 4))
    night.add("selfheal_worker_model_calls_running", running, **name, **of)
    allowed = during(lambda s: 4.0 if s in _OUTAGE else 16.0)
    night.add("selfheal_worker_model_calls_allowed", allowed, **name, **of)
    night.add("selfheal_worker_model_load_seconds", during(2.4), **_MODEL, **of)
    loaded = during(0.2)
    night.add("selfheal_worker_model_load_seconds", loaded, **_FALLBACK, **of)


def _queues(night: Night, work: Work) -> None:
    of = target(f"{RELEASE}-rabbitmq-0", "rabbitmq")
    flying = [min(depth, 16.0 * most) for depth, most in zip(work.depth, work.wanted, strict=True)]
    dead = grown([0.004 * sum(p.answered.get(s, 0.0) for p in work.pods) for s in range(COUNT)])
    results = each(lambda s: max(0.0, 12 + 12 * noise(s, 4)) if work.wanted[s] else 0.0)
    none = each(0.0)
    ready = [depth - some for depth, some in zip(work.depth, flying, strict=True)]
    one = each(1.0)
    rounded = [math.floor(value or 0.0) for value in dead]
    for queue, left, unacked, consumers in (
        ("feedback", ready, flying, [float(count) for count in work.wanted]),
        ("feedback.results", results, none, one),
        ("feedback.dead-letters", rounded, none, none),
    ):
        values: Mapping[str, Values]
        values = {"messages_ready": left, "messages_unacked": unacked, "consumers": consumers}
        for name, series in values.items():
            night.add(f"rabbitmq_detailed_queue_{name}", series, queue=queue, **of)
    free = each(lambda s: 7.4 * GIB - s * 2 * MIB)
    night.add("rabbitmq_disk_space_available_bytes", free, **of)
    limit = each(1.0 * GIB)
    night.add("rabbitmq_disk_space_available_limit_bytes", limit, **of)


def _autoscaling(night: Night, work: Work) -> None:
    wanted = [float(count) for count in work.wanted]
    ready = [float(sum(p.first < s < p.last for p in work.pods)) for s in range(COUNT)]
    of = {"namespace": NAMESPACE, "deployment": f"{RELEASE}-worker"}
    night.add("kube_deployment_spec_replicas", wanted, **of)
    night.add("kube_deployment_status_replicas_ready", ready, **of)
    night.add("kube_deployment_metadata_generation", between((200, COUNT, 8), other=7), **of)
    hpa = {"namespace": NAMESPACE, "horizontalpodautoscaler": f"keda-hpa-{RELEASE}-worker"}
    prefix = "kube_horizontalpodautoscaler"
    night.add(f"{prefix}_status_desired_replicas", wanted, **hpa)
    night.add(f"{prefix}_spec_max_replicas", each(4.0), **hpa)
    limited = [float(count == _MOST) for count in work.wanted]
    active = [float(count > 0) for count in work.wanted]
    for condition, values in (
        ("AbleToScale", each(1.0)),
        ("ScalingActive", active),
        ("ScalingLimited", limited),
    ):
        name = f"{prefix}_status_condition"
        night.add(name, values, condition=condition, status="true", **hpa)
    scaled = {"exported_namespace": NAMESPACE, "namespace": "keda"}
    scaled |= {"scaledObject": f"{RELEASE}-worker"}
    night.add("keda_scaler_metrics_value", work.depth, **scaled)
    night.add("keda_scaler_active", active, **scaled)
    failed = between((0, 180, 0), (180, COUNT, 2))
    night.add("keda_scaler_detail_errors_total", failed, **scaled)


def _resources(night: Night, work: Work) -> None:
    whole = range(COUNT)
    pods: list[tuple[str, str, str, range]] = [
        *((p.name, "worker", p.node, range(p.first, p.last)) for p in work.pods),
        (f"{RELEASE}-rabbitmq-0", "rabbitmq", NODES[0], whole),
        (f"{RELEASE}-remediator-5f7c9d8b6-tq7zn", "remediator", NODES[0], whole),
        (f"{RELEASE}-remediator-5f7c9d8b6-w4hxc", "remediator", NODES[3], whole),
        *((f"shop-{number}-7f6d-abcde", "shop", node, whole) for number, node in enumerate(NODES)),
    ]
    answered = {p.name: p.answered for p in work.pods}
    sizes = {"worker": 60, "rabbitmq": 180, "remediator": 45, "shop": 5200}
    for number, (pod, container, node, alive) in enumerate(pods):
        there = [1.0 if step in alive else None for step in range(COUNT)]
        base = 45.0 if container == "shop" else 0.4

        def busy(s: int, pod: str = pod, base: float = base, number: int = number) -> float:
            return base * (1 + 0.3 * noise(s, number)) + answered.get(pod, {}).get(s, 0.0) * 0.12

        of = {"namespace": "shop" if container == "shop" else NAMESPACE}
        of |= {"pod": pod, "uid": pod}
        inside = {**of, "container": container}
        used = [busy(s) if s in alive else None for s in range(COUNT)]
        night.add("container_cpu_usage_seconds_total", grown(used), **inside)
        size = sizes[container] * MIB
        memory = [size * (1 + 0.04 * noise(s, number)) if s in alive else None for s in whole]
        night.add("container_memory_working_set_bytes", memory, **inside)
        night.add("kube_pod_info", there, node=node, **of)
        night.add("kube_pod_status_phase", there, phase="Running", **of)
        large = container == "shop"
        for resource, most in (("cpu", 2.0 if large else 0.25), ("memory", size * 1.5)):
            values = [most if one else None for one in there]
            asked = {"resource": resource, "node": node, **inside}
            night.add("kube_pod_container_resource_requests", values, **asked)
            if not large:
                limit = [most * 2 if one else None for one in there]
                night.add("kube_pod_container_resource_limits", limit, **asked)
        if pod == work.pods[-1].name:
            _limits(night, of, inside, there, answered[pod])


def _limits(
    night: Night,
    of: Mapping[str, str],
    inside: Mapping[str, str],
    there: Values,
    answered: Mapping[int, float],
) -> None:
    periods = [None if one is None else 300.0 for one in there]
    held = [
        None if one is None else 300.0 * min(0.4, answered.get(s, 0.0) / 400)
        for s, one in enumerate(there)
    ]
    night.add("container_cpu_cfs_periods_total", grown(periods), **inside)
    night.add("container_cpu_cfs_throttled_periods_total", grown(held), **inside)
    restarts = [None if one is None else float(s >= 255) for s, one in enumerate(there)]
    night.add("kube_pod_container_status_restarts_total", restarts, **inside)
    unplaced = [1.0 if one and s in range(340, 348) else None for s, one in enumerate(there)]
    night.add("kube_pod_status_unschedulable", unplaced, **of)
    killed = [1.0 if one and s >= 300 else None for s, one in enumerate(there)]
    name = "kube_pod_container_status_last_terminated_reason"
    night.add(name, killed, reason="OOMKilled", **inside)
