"""The made-up night's nodes, and what the remediator does about them and about pods."""

from __future__ import annotations

import itertools

from ci.pictures.series import (
    COUNT,
    GIB,
    LATENCY,
    MIB,
    NAMESPACE,
    RELEASE,
    START,
    STEP,
    Night,
    Values,
    between,
    each,
    grown,
    noise,
    rising,
    target,
    times,
)

NODES = tuple(f"node-{number}" for number in range(1, 7))


#: node, condition, and the step at which each phase begins; the last one ends it.
_FAULTS = (
    (
        *("node-3", "KernelDeadlock"),
        (("cordoned", 111), ("draining", 112), ("drained", 127), ("", 182)),
    ),
    (
        *("node-5", "ReadonlyFilesystem"),
        (
            *(("cordoned", 242), ("draining", 244), ("repairing", 252)),
            *(("verifying", 270), ("", 276)),
        ),
    ),
)


def remediator(night: Night) -> None:
    """Its leader's series of nodes and drains, and those that each process has."""
    leader, other = (f"{RELEASE}-remediator-5f7c9d8b6-{name}" for name in ("tq7zn", "w4hxc"))
    of = target(leader, "remediator") | {"node": NODES[0]}
    prefix = "selfheal_remediator_"

    def add(name: str, values: Values, **labels: str) -> None:
        night.add(prefix + name, values, **of, **labels)

    phases: dict[str, list[float]] = {}
    for node, condition, changes in _FAULTS:
        for (phase, first), (_, last) in itertools.pairwise(changes):
            held = between((first, last, 1.0), other=None)
            labels = {"cordoned_node": node, "condition": condition, "phase": phase}
            add("cordoned_node_info", held, **labels)
            counted = phases.setdefault(phase, [0.0] * COUNT)
            counted[first:last] = [count + 1 for count in counted[first:last]]
    for phase, counted in phases.items():
        add("cordoned_nodes", counted, phase=phase)
        add("nodes", counted, state=phase)
    well = [6 - sum(counts) for counts in zip(*phases.values(), strict=True)]
    add("nodes", well, state="ok")
    add("draining_nodes", phases["draining"])
    drains = ((112, 127), (244, 252))
    oldest = [
        max((STEP * (s - a) for a, b in drains if a <= s < b), default=0) for s in range(COUNT)
    ]
    add("oldest_drain_seconds", [float(age) for age in oldest])
    add("drain_blocked_pods", between((114, 122, 2.0)), cause="pdb")
    add("drain_blocked_pods", between((122, 126, 1.0), (246, 250, 1.0)), cause="terminating")
    add("limited_nodes", between((242, 244, 1.0)), limit="minInterval")
    add("limited_nodes", between((268, 272, 1.0)), limit="maxUnavailable")
    add("signal_rejected_nodes", between((150, 162, 1.0)), cause="stale-heartbeat")
    add("restore_missing_objects", between((60, 62, 1.0)))
    add("restore_drifted_objects", between((200, 230, 1.0)), field="image")
    for action, steps in (("cordon", (111, 242)), ("drain", (112, 244)), ("uncordon", (182, 276))):
        add("actions_total", rising(*steps), action=action, result="done")
    add("actions_total", rising(181), action="uncordon", result="conflict")
    accepted = rising(112, 113, 113, 114, 122, 123, 244, 245, 245, 246)
    add("evictions_total", accepted, outcome="accepted")
    add("evictions_total", rising(114, 116, 118), outcome="pdb")
    add("evictions_total", rising(125), outcome="gone")
    add("drain_duration_seconds_count", rising(127, 252), result="succeeded")
    add(
        "drain_duration_seconds_sum",
        between((0, 127, 0), (127, 252, 452), other=690),
        result="succeeded",
    )
    add("condition_to_cordon_seconds_count", rising(111), condition="KernelDeadlock")
    add("condition_to_cordon_seconds_sum", between((111, COUNT, 61)), condition="KernelDeadlock")
    add("condition_to_cordon_seconds_count", rising(242), condition="ReadonlyFilesystem")
    add(
        "condition_to_cordon_seconds_sum",
        between((242, COUNT, 93)),
        condition="ReadonlyFilesystem",
    )
    acted = between((111, 112, 1.0), (242, 243, 1.0))
    night.histogram(f"{prefix}action_delay_seconds", acted, 0.05, LATENCY, **of)
    _remediator_itself(night, leader, other)


def _remediator_itself(night: Night, leader: str, other: str) -> None:
    prefix = "selfheal_remediator_"
    for pod in (leader, other):
        of = target(pod, "remediator")
        leads = float(pod == leader)

        def add(name: str, values: Values, of: dict[str, str] = of, **labels: str) -> None:
            night.add(prefix + name, values, **of, **labels)

        add("leader", each(leads))
        add("read_only", each(0.0))
        add("paused", between((0, 20, 1.0)))
        add("config_last_reload_successful", between((300, 304, 0.0), other=1.0))
        add("last_reconcile_timestamp_seconds", each(lambda s: START + STEP * s - 1 - s % 3))
        add("nodes_watch_age_seconds", each(lambda s: 2 + 4 * abs(noise(s))))
        add("watch_relists_total", rising(0), watch="nodes")
        add("thread_failures_total", each(0.0))
        add("events_total", rising(111, 112, 127, 182, 242, 244, 252, 276), result="written")
        add("progress_probes_total", grown(each(6.0 * leads)), result="answered")
        add("progress_probes_total", grown(between((250, 256, 2.0 * leads))), result="silent")
        for verb, code, often in (
            *(("GET", "200", 6.0), ("PATCH", "200", 0.4), ("PATCH", "409", 0.02)),
            *(("POST", "201", 0.3), ("POST", "429", 0.05), ("WATCH", "200", 0.2)),
        ):
            rates = times(each(lambda s: 1 + 0.3 * noise(s)), often)
            add("api_requests_total", grown(rates), verb=verb, code=code)
        for verb, middle in (("GET", 0.006), ("PATCH", 0.012), ("POST", 0.02)):
            night.histogram(
                f"{prefix}api_request_duration_seconds",
                each(3.0),
                middle,
                LATENCY,
                verb=verb,
                **of,
            )
        memory = times(each(lambda s: 1 + noise(s) / 40), (34 + 8 * leads) * MIB)
        night.add("process_resident_memory_bytes", memory, **of)


def healing(night: Night) -> None:
    """Two HealingPolicies, each with a bad quarter of an hour."""
    of = target(f"{RELEASE}-remediator-5f7c9d8b6-tq7zn", "remediator")
    prefix = "selfheal_remediator_"
    unhealthy = {"payments/checkout": (140, 156), "selfheal/workers": (250, 264)}
    for policy, (first, last) in unhealthy.items():
        labels = of | {"policy": policy}
        night.add(f"{prefix}policy_pods", each(4.0), state="desired", **labels)
        healthy = between((first, last, 3.0), other=4.0)
        night.add(f"{prefix}policy_pods", healthy, state="healthy", **labels)
        for state, values in {
            "Healing": between((first, last - 4, 1.0)),
            "Throttled": between((last - 4, last, 1.0)),
            "Healthy": between((first, last, 0.0), other=1.0),
        }.items():
            night.add(f"{prefix}policy_state", values, state=state, **labels)
        cause = "no-progress" if policy.startswith("selfheal") else "not-ready"
        restarts = rising(first + 2, first + 5)
        night.add(f"{prefix}healing_restarts_total", restarts, cause=cause, **labels)
    stuck = between((146, 160, 1.0))
    night.add(f"{prefix}policy_rollouts_stuck", stuck, policy="payments/checkout", **of)
    for cause, steps in (("pdb", (143, 145)), ("rollout", (147,))):
        night.add(f"{prefix}healing_refused_total", rising(*steps), cause=cause, **of)


def nodes(night: Night) -> None:
    """What kube-state-metrics and node-problem-detector say of the nodes."""
    spans = {node: (changes[0][1], changes[-1][1]) for node, _, changes in _FAULTS}
    faults = {(node, condition): changes for node, condition, changes in _FAULTS}
    for node in NODES:
        cordoned = between((*spans[node], 1.0)) if node in spans else each(0.0)
        night.add("kube_node_spec_unschedulable", cordoned, node=node)
        for resource, size in (("cpu", 4.0), ("memory", 16.0 * GIB)):
            values = each(size)
            night.add("kube_node_status_allocatable", values, node=node, resource=resource)
        for condition in ("KernelDeadlock", "ReadonlyFilesystem", "MemoryPressure"):
            values = each(0.0)
            if changes := faults.get((node, condition)):
                values = between((changes[0][1] - 2, changes[-1][1] - 10, 1.0))
            night.add(
                "kube_node_status_condition", values, node=node, condition=condition, status="true"
            )
        for status in ("false", "unknown"):
            away = between((128, 134, 1.0)) if (node, status) == ("node-3", "unknown") else None
            night.add(
                "kube_node_status_condition",
                away or each(0.0),
                node=node,
                condition="Ready",
                status=status,
            )
    for _, condition, changes in _FAULTS:
        first = changes[0][1]
        reported = between((first - 2, changes[-1][1] - 10, 1.0))
        night.add("problem_gauge", reported, type=condition, reason="TaskHung")
    night.add("problem_counter", rising(108, 109, 240), reason="TaskHung")
    detectors = {"namespace": NAMESPACE, "daemonset": f"{RELEASE}-node-problem-detector"}
    unavailable = between((128, 136, 1.0))
    night.add("kube_daemonset_status_number_unavailable", unavailable, **detectors)


def alerts(night: Night) -> None:
    """Of each severity."""
    for name, severity, first, last in (
        ("SelfhealModelBreakerOpen", "critical", 256, 264),
        ("SelfhealDeadLettersGrowing", "warning", 90, 130),
        ("SelfhealDrainBlocked", "warning", 118, 124),
        ("SelfhealWorkersAtMaximum", "warning", 60, 100),
        ("SelfhealNodesCordoned", "info", 111, 182),
        ("SelfhealNodesCordoned", "info", 242, 276),
    ):
        labels = {"alertname": name, "alertstate": "firing", "severity": severity}
        labels |= {"namespace": NAMESPACE, "release": RELEASE}
        night.add("ALERTS", between((first, last, 1.0), other=None), **labels)
