"""HealingPolicies for `plan` and `status`. Only reads and dry-run evictions."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_remediator.config import Config
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.node_view import node_path, node_trouble
from selfheal_remediator.healing.owners import owner_of
from selfheal_remediator.healing.plan import Around, RestartAction
from selfheal_remediator.healing.pod_health import Stall, watched_from_json
from selfheal_remediator.healing.policy import PAUSED, PodReport, Policy, policy_from_json
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.decoding import Unread, decode_each
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import (
    Outcome,
    budget_refusal,
    classify_eviction,
    understood,
)
from selfheal_remediator.node.planner import Planner


@dataclass(frozen=True, slots=True)
class PolicyStatus:
    """One policy as its status says. Times are seconds since the epoch; 0 = never."""

    policy: str
    state: str
    healthy: int
    desired: int
    restarts: int
    last_heal: float
    message: str
    pods: tuple[PodReport, ...] = ()


@dataclass(frozen=True, slots=True)
class PodPlan:
    """What would be done to one unhealthy pod: `restart` or `none`; waits: the skip reason."""

    policy: str
    pod: str
    action: str
    why: str
    waits: str = ""


def policies_status(
    api: KubernetesApi, config: Config
) -> tuple[tuple[PolicyStatus, ...], tuple[str, ...]]:
    """All policies, the worst first, and notes about those that cannot be read.

    Raises ApiFailure (never because the type is unknown).
    """
    unread: list[Unread] = []
    found = decode_each(_raws(api, config), _status, unread)
    order = ("GaveUp", "Degraded", "Throttled", "Healing", "Paused")
    rank = {state: number for number, state in enumerate(order)}
    ordered = sorted(found, key=lambda item: (rank.get(item.state, 9), item.policy))
    return tuple(ordered), _notes("HealingPolicy", unread)


def _notes(what: str, unread: list[Unread]) -> tuple[str, ...]:
    return tuple(f"{what} {item}" for item in unread)


@understood("a HealingPolicy")
def _status(raw: Json) -> PolicyStatus:
    policy, status = policy_from_json(raw), raw.get("status") or {}
    return PolicyStatus(
        policy=policy.key,
        state=status.get("state") or "not evaluated yet",
        healthy=status.get("healthyReplicas") or 0,
        desired=status.get("replicas") or 0,
        restarts=policy.saved.restarts,
        last_heal=policy.saved.last_heal or 0.0,
        message=policy.problem or status.get("message") or "",
        pods=tuple(
            PodReport(
                item["name"],
                item["cause"],
                item.get("detail", ""),
                policy.saved.since.get((item["name"], item["cause"]), 0.0),
            )
            for item in status.get("pods") or ()
        ),
    )


def policies_plan(
    api: KubernetesApi, config: Config, planner: Planner, paused: str, now: float
) -> tuple[tuple[PodPlan, ...], int, tuple[str, ...]]:
    """What would be done to the pods of all policies as they are now, how many policies, and
    notes about what cannot be read.

    Progress is not probed: the policies' status is used instead. Raises ApiFailure.
    """
    healing = Healing(
        config.policies.evaluation_interval,
        rollout_deadline=config.policies.rollout_deadline,
        once=True,
    )
    unread: list[Unread] = []
    unread_pods: list[Unread] = []
    policies = decode_each(_raws(api, config), policy_from_json, unread)
    for policy in policies:
        if not policy.problem:
            _take_in(api, healing, policy, now, unread_pods)
    around = Around(
        lambda name: node_trouble(planner.entry_named(name), planner.marks),
        lambda name: node_path(planner.entry_named(name), config, planner.marks),
        f"{PAUSED}{paused}" if paused else "",
    )
    made = healing.evaluate(now, around)
    plans = [
        PodPlan(action.policy, action.pod.id, "restart", action.why, _refusal(api, action))
        for action in made.restarts
    ]
    chosen = {plan.pod for plan in plans}
    for policy_state in healing.policy_states.values():
        for group in policy_state.groups.values():
            for pod in group.unhealthy:
                if pod.id in chosen:
                    continue
                waits = group.skip_reason.text if group.skip_reason is not None else "one at a time"
                why = policy_state.observations[pod.uid].diagnosis.name
                plans.append(PodPlan(policy_state.policy.key, pod.id, "none", why, waits))
    notes = (*_notes("HealingPolicy", unread), *_notes("pod", unread_pods))
    return tuple(sorted(plans, key=lambda plan: (plan.policy, plan.pod))), len(policies), notes


def _take_in(
    api: KubernetesApi, healing: Healing, policy: Policy, now: float, unread: list[Unread]
) -> None:
    healing.adopt(policy, now)
    for raws, _ in api.pods_labelled(policy.namespace, policy.selector).pages():
        for pod in decode_each(raws, watched_from_json, unread):
            healing.pod_changed(policy.key, Change(pod.name, None, pod))
            if pod.owner_uid and pod.owner_uid not in healing.owners:
                healing.owner_known(pod.owner_uid, owner_of(pod, api.controller))
            hung = policy.saved.since.get((pod.name, "NoProgress"))
            if hung is not None:
                reports = healing.policy_states[policy.key].progress
                reports.assume_stall(pod.uid, Stall(hung, now, 0))
    healing.pods_known(policy.key)


def _refusal(api: KubernetesApi, action: RestartAction) -> str:
    """What the API server says to the eviction; empty = it would let the pod go."""
    pod = action.pod
    answer = api.evict(pod.namespace, pod.name, pod.uid, action.grace, dry_run=True)
    result = classify_eviction(answer)
    if result.outcome.over:
        return ""
    refusal = budget_refusal(result.message)
    if result.outcome is Outcome.BUDGET and refusal:
        return f"PDB {pod.namespace}/{refusal}"
    return f"{result.outcome.value}: {result.message[:200]}"


def _raws(api: KubernetesApi, config: Config) -> list[Json]:
    """All policies that count; none while their type is not installed."""
    found: list[Json] = []
    if not config.policies.enabled:
        return found
    for namespace in config.policies.namespaces or ("",):
        try:
            for raws, _ in api.policies(namespace).pages():
                found += raws
        except ApiFailure as failure:
            if failure.status != 404:
                raise
    return found
