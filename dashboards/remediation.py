"""What happens to nodes, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dashboards.panels import CLUSTER, REMEDIATOR, Board, Panel, Query, Row

_OFF = "no remediator in this release"


def _mean(metric: str, by: str) -> Query:
    return Query(
        f"sum by ({by}) (increase({metric}_sum{{{REMEDIATOR}}}[1h]))"
        f" / sum by ({by}) (increase({metric}_count{{{REMEDIATOR}}}[1h])) >= 0",
        f"{{{{{by}}}}}",
    )


#: Phase of a cordoned node, and policy state: the colours in which their timelines show them.
PHASES = {
    "cordoned": "orange",
    "draining": "yellow",
    "drained": "blue",
    "repairing": "purple",
    "repair_failed": "red",
    "verifying": "green",
}
POLICY_STATES = {
    "Healthy": "green",
    "Idle": "text",
    "Paused": "purple",
    "Healing": "blue",
    "Throttled": "yellow",
    "Degraded": "orange",
    "GaveUp": "red",
}


def _colours(states: Mapping[str, str]) -> str:
    """For people: a short time in a state has no room for its name."""
    return ", ".join(
        f"{state} {'grey' if colour == 'text' else colour}" for state, colour in states.items()
    )


def _states(metric: str, by: str, label: str, states: Mapping[str, str]) -> dict[str, Any]:
    """One line for each `by`, and on it the state that it is in: the number of a series that is 1."""
    values = " or ".join(
        f'{number} * ({metric}{{{REMEDIATOR},{label}="{state}"}} == 1)'
        for number, state in enumerate(states, 1)
    )
    colours = list(states.values())
    return {
        "queries": (
            Query(
                f"max by ({by}) ({values})", " ".join(f"{{{{{name}}}}}" for name in by.split(", "))
            ),
        ),
        "kind": "timeline",
        "steps": ((None, colours[0]), *enumerate(colours[1:], 2)),
        "mappings": {str(number): state for number, state in enumerate(states, 1)},
    }


_NODES = Row(
    "Nodes",
    (
        Panel(
            "Nodes cordoned",
            f"Each cordoned node with its condition, and the phase that it is in: {_colours(PHASES)}.",
            "short",
            **_states(
                "selfheal_remediator_cordoned_node_info",
                "cordoned_node, condition",
                "phase",
                PHASES,
            ),
            empty="no node is cordoned",
            width=16,
        ),
        Panel(
            "Conditions",
            "Bad conditions of nodes in the API server, whoever set them.",
            "short",
            (
                Query(
                    "sum by (condition) (kube_node_status_condition"
                    f'{{{CLUSTER},condition!="Ready",status="true"}}) > 0',
                    "{{condition}}",
                ),
                Query(
                    f'sum(kube_node_status_condition{{{CLUSTER},condition="Ready",status!="true"}})',
                    "not Ready",
                ),
            ),
            empty="none, or kube-state-metrics is not scraped",
        ),
        Panel(
            "Conditions by node",
            "Each node's bad conditions over time, and whether it is cordoned, whoever cordoned it.",
            "short",
            (
                Query(
                    "max by (node, condition) (kube_node_status_condition"
                    f'{{{CLUSTER},condition!="Ready",status="true"}}) > 0',
                    "{{node}} {{condition}}",
                ),
                Query(
                    "max by (node) (kube_node_status_condition"
                    f'{{{CLUSTER},condition="Ready",status!="true"}}) > 0',
                    "{{node}} not Ready",
                ),
                Query(
                    f"max by (node) (kube_node_spec_unschedulable{{{CLUSTER}}}) > 0",
                    "{{node}} cordoned",
                ),
            ),
            kind="timeline",
            empty="none, or kube-state-metrics is not scraped",
            steps=((None, "red"),),
            mappings={"1": "yes"},
            width=16,
        ),
        Panel(
            "Node states",
            "The state of each node, as the leader evaluates it.",
            "short",
            (Query(f"max by (state) (selfheal_remediator_nodes{{{REMEDIATOR}}})", "{{state}}"),),
            empty=_OFF,
            stack=True,
        ),
        Panel(
            "Actions",
            "Changes of nodes within 5 minutes, by result. `overtaken`: the node had changed when it was read again.",
            "short",
            (
                Query(
                    "sum by (action, result) (increase(selfheal_remediator_actions_total"
                    f"{{{REMEDIATOR}}}[5m])) > 0",
                    "{{action}} {{result}}",
                ),
            ),
            empty="nothing was done",
            width=12,
        ),
        Panel(
            "Problems reported by the detector",
            "node-problem-detector's own counters: kernel messages and checks, within 5 minutes.",
            "short",
            (
                Query(
                    f"sum by (reason) (increase(problem_counter{{{CLUSTER}}}[5m])) > 0",
                    "{{reason}}",
                ),
                Query(
                    f"sum by (type, reason) (problem_gauge{{{CLUSTER}}}) > 0", "{{type}} {{reason}}"
                ),
            ),
            empty="none, or the detector is not scraped",
            width=12,
        ),
    ),
)

_DRAINS = Row(
    "Drains",
    (
        Panel(
            "Running drains",
            "Nodes being drained, and the age of the oldest drain.",
            "short",
            (Query(f"max(selfheal_remediator_draining_nodes{{{REMEDIATOR}}})", "draining"),),
            empty=_OFF,
        ),
        Panel(
            "Oldest drain",
            "Age of the oldest unfinished drain; 0 = none.",
            "s",
            (Query(f"max(selfheal_remediator_oldest_drain_seconds{{{REMEDIATOR}}})", "oldest"),),
            empty=_OFF,
            steps=((None, "green"), (1800, "orange"), (3600, "red")),
        ),
        Panel(
            "Pods that block a drain",
            "Pods that cannot be evicted, by cause. The node's Events name them and their budget.",
            "short",
            (
                Query(
                    f"max by (cause) (selfheal_remediator_drain_blocked_pods{{{REMEDIATOR}}})",
                    "{{cause}}",
                ),
            ),
            empty="none",
            steps=((None, "green"), (1, "orange")),
        ),
        Panel(
            "Drains",
            "Drains that ended within an hour: the node is empty, or its pods did not fit elsewhere.",
            "short",
            (
                Query(
                    "sum by (result) (increase(selfheal_remediator_drain_duration_seconds_count"
                    f"{{{REMEDIATOR}}}[1h])) > 0",
                    "{{result}}",
                ),
            ),
            empty="none",
        ),
        Panel(
            "Duration of drains",
            "Mean time from a drain's start to its end, over an hour.",
            "s",
            (_mean("selfheal_remediator_drain_duration_seconds", "result"),),
            empty="none",
        ),
        Panel(
            "Evictions",
            "Answers to eviction requests within 5 minutes. `pdb`: refused by a PodDisruptionBudget.",
            "short",
            (
                Query(
                    "sum by (outcome) (increase(selfheal_remediator_evictions_total"
                    f"{{{REMEDIATOR}}}[5m])) > 0",
                    "{{outcome}}",
                ),
            ),
            empty="none",
        ),
    ),
)

_POLICIES = Row(
    "Pod healing",
    (
        Panel(
            "Pods of policies",
            "For each HealingPolicy: the desired pods of their owners, and the healthy pods.",
            "short",
            (
                Query(
                    f"max by (policy, state) (selfheal_remediator_policy_pods{{{REMEDIATOR}}})",
                    "{{policy}} {{state}}",
                ),
            ),
            empty="there is no HealingPolicy",
        ),
        Panel(
            "State of policies",
            "Healing: a pod is being restarted. Throttled: a restart is needed and has to wait. GaveUp: "
            "the hour's restarts did not help, or all pods are unhealthy. Degraded: no restart can help. "
            f"Colours: {_colours(POLICY_STATES)}.",
            "short",
            **_states("selfheal_remediator_policy_state", "policy", "state", POLICY_STATES),
            empty="there is no HealingPolicy",
            width=16,
        ),
        Panel(
            "Stuck rollouts",
            "Owners of a policy's pods whose rollout makes no progress past its deadline. The policy's "
            "condition RolloutStuck names them.",
            "short",
            (
                Query(
                    f"max by (policy) (selfheal_remediator_policy_rollouts_stuck{{{REMEDIATOR}}}) > 0",
                    "{{policy}}",
                ),
            ),
            empty="none",
            steps=((None, "green"), (1, "orange")),
            width=6,
        ),
        Panel(
            "Restarts by policies",
            "Pods restarted within an hour, by cause.",
            "short",
            (
                Query(
                    "sum by (policy, cause) (increase(selfheal_remediator_healing_restarts_total"
                    f"{{{REMEDIATOR}}}[1h])) > 0",
                    "{{policy}} {{cause}}",
                ),
            ),
            empty="no pod was restarted",
            width=6,
        ),
        Panel(
            "Failed restarts",
            "Evictions of unhealthy pods that were refused within 5 minutes. `pdb`: refused by a "
            "disruption budget.",
            "short",
            (
                Query(
                    "sum by (cause) (increase(selfheal_remediator_healing_refused_total"
                    f"{{{REMEDIATOR}}}[5m])) > 0",
                    "{{cause}}",
                ),
            ),
            empty="none",
            width=6,
        ),
        Panel(
            "Progress probes",
            "Progress probes of pods per second. A pod that does not answer does not count as hung.",
            "reqps",
            (
                Query(
                    "sum by (result) (rate(selfheal_remediator_progress_probes_total"
                    f"{{{REMEDIATOR}}}[$__rate_interval]))",
                    "{{result}}",
                ),
            ),
            empty="no HealingPolicy asks for progress",
            width=6,
        ),
    ),
)

_SAFETY = Row(
    "Limits and signals",
    (
        Panel(
            "Limits",
            "Nodes that wait for a limit. minInterval, rate and maxDraining only pace; maxUnavailable and "
            "unavailable say that enough is out of service.",
            "short",
            (
                Query(
                    f"max by (limit) (selfheal_remediator_limited_nodes{{{REMEDIATOR}}})",
                    "{{limit}}",
                ),
            ),
            empty="none is reached",
            steps=((None, "green"), (1, "orange")),
        ),
        Panel(
            "Ignored signals",
            "Nodes with a bad condition that is ignored: its detector is silent, or many nodes report "
            "the same at once.",
            "short",
            (
                Query(
                    f"max by (cause) (selfheal_remediator_signal_rejected_nodes{{{REMEDIATOR}}})",
                    "{{cause}}",
                ),
            ),
            empty="none",
            steps=((None, "green"), (1, "orange")),
        ),
        Panel(
            "From condition to cordon",
            "Mean time from the first observation of a condition to the cordon, over an hour; the rule's "
            "duration is part of it.",
            "s",
            (_mean("selfheal_remediator_condition_to_cordon_seconds", "condition"),),
            empty="nothing was cordoned",
        ),
        Panel(
            "Delay of actions",
            "From the end of a rule's duration to the cordon: 99 of 100 within this time, over an "
            "hour.",
            "s",
            (
                Query(
                    "histogram_quantile(0.99, sum by (le) (increase("
                    f"selfheal_remediator_action_delay_seconds_bucket{{{REMEDIATOR}}}[1h]))) >= 0",
                    "p99",
                ),
            ),
            empty="nothing was cordoned",
            width=12,
        ),
        Panel(
            "Detectors that do not run",
            "Nodes whose node-problem-detector is not available.",
            "short",
            (
                Query(
                    "sum(kube_daemonset_status_number_unavailable"
                    f'{{{CLUSTER},daemonset="$release-node-problem-detector"}})',
                    "unavailable",
                ),
            ),
            empty="no data: no detector in this release, or kube-state-metrics is not scraped",
            width=12,
        ),
    ),
)

_SELF = Row(
    "The remediator itself",
    (
        Panel(
            "Leader",
            "The leader, and whether it is paused (or in observeFirst), read-only, or uses an older configuration.",
            "short",
            (
                Query(
                    f"max by (pod) (selfheal_remediator_leader{{{REMEDIATOR}}})", "{{pod}} leads"
                ),
                Query(f"max(selfheal_remediator_paused{{{REMEDIATOR}}})", "paused"),
                Query(f"max(selfheal_remediator_read_only{{{REMEDIATOR}}})", "read only"),
                Query(
                    f"max(1 - selfheal_remediator_config_last_reload_successful{{{REMEDIATOR}}})",
                    "configuration refused",
                ),
            ),
            kind="timeline",
            empty=_OFF,
            steps=((None, "text"), (1, "blue")),
            mappings={"0": "no", "1": "yes"},
            width=12,
        ),
        Panel(
            "Age of the last plan",
            "Seconds since the leader last made a plan, and since the last update of the node watch.",
            "s",
            (
                Query(
                    "min(time() - (selfheal_remediator_last_reconcile_timestamp_seconds"
                    f"{{{REMEDIATOR}}} > 0))",
                    "plan",
                ),
                Query(f"max(selfheal_remediator_nodes_watch_age_seconds{{{REMEDIATOR}}})", "watch"),
            ),
            empty=_OFF,
            steps=((None, "green"), (120, "red")),
            width=12,
        ),
        Panel(
            "Requests to the API server",
            "Requests per second, by verb and status code. Below 0.5 when idle.",
            "reqps",
            (
                Query(
                    "sum by (verb, code) (rate(selfheal_remediator_api_requests_total"
                    f"{{{REMEDIATOR}}}[$__rate_interval]))",
                    "{{verb}} {{code}}",
                ),
            ),
            empty=_OFF,
        ),
        Panel(
            "Latency of requests",
            "95 of 100 answers came within this time. A WATCH counts until it began.",
            "s",
            (
                Query(
                    "histogram_quantile(0.95, sum by (le, verb) (rate("
                    "selfheal_remediator_api_request_duration_seconds_bucket"
                    f"{{{REMEDIATOR}}}[$__rate_interval]))) >= 0",
                    "{{verb}}",
                ),
            ),
            empty=_OFF,
        ),
        Panel(
            "Memory",
            "Resident memory of each remediator's process.",
            "bytes",
            (Query(f"max by (pod) (process_resident_memory_bytes{{{REMEDIATOR}}})", "{{pod}}"),),
            empty=_OFF,
        ),
        Panel(
            "Lists of all nodes",
            "Complete lists within an hour; one at start, more when watches break.",
            "short",
            (
                Query(
                    "sum by (pod, watch) (increase(selfheal_remediator_watch_relists_total"
                    f"{{{REMEDIATOR}}}[1h]))",
                    "{{pod}} {{watch}}",
                ),
            ),
            empty=_OFF,
        ),
        Panel(
            "Unexpected failures",
            "Unexpected exceptions in threads within 5 minutes; the threads continued.",
            "short",
            (
                Query(
                    "sum by (pod) (increase(selfheal_remediator_thread_failures_total"
                    f"{{{REMEDIATOR}}}[5m]))",
                    "{{pod}}",
                ),
            ),
            empty=_OFF,
        ),
        Panel(
            "Events",
            "Kubernetes Events within 5 minutes, by result.",
            "short",
            (
                Query(
                    "sum by (result) (increase(selfheal_remediator_events_total"
                    f"{{{REMEDIATOR}}}[5m])) > 0",
                    "{{result}}",
                ),
            ),
            empty="none",
        ),
        Panel(
            "Objects of the release",
            "Objects of the release that were deleted and are not made again yet, and Deployments that differ "
            "from the release, by field.",
            "short",
            (
                Query(
                    f"max(selfheal_remediator_restore_missing_objects{{{REMEDIATOR}}})", "missing"
                ),
                Query(
                    f"max by (field) (selfheal_remediator_restore_drifted_objects{{{REMEDIATOR}}})",
                    "changed: {{field}}",
                ),
            ),
            empty="nothing is made again (remediator.config.restore)",
            steps=((None, "green"), (1, "orange")),
            width=24,
        ),
    ),
)

REMEDIATION = Board(
    "selfheal-remediation",
    "selfheal / Remediation",
    "Which nodes are bad, what is done about them, and what limits it.",
    (_NODES, _DRAINS, _POLICIES, _SAFETY, _SELF),
)
