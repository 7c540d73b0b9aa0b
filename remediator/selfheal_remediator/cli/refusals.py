"""What keeps a pod on a node that is drained, for `plan` and `status`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from selfheal_remediator.config import Config
from selfheal_remediator.drain.eviction import STUCK_AFTER
from selfheal_remediator.drain.surge import NOTHING, Decision, cordon_mark
from selfheal_remediator.drain.surge_errand import decided, deployment_of
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.budgets import Budget
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.kube.responses import Outcome, classify_eviction
from selfheal_remediator.node.annotation import known_state


@dataclass(frozen=True, slots=True)
class Surges:
    """Of which Deployments rollouts replace the pods of a node; nothing without drain.surge."""

    api: KubernetesApi
    config: Config
    node: Node
    now: float
    #: What could not be read.
    notes: set[str] = field(default_factory=set)

    def of(self, pod: Pod, covering: list[Budget]) -> Decision:
        """What a drain would do about the pod, which these budgets do not let go."""
        if not self.config.drain.surge or len(covering) != 1:
            return NOTHING
        try:
            deployment = deployment_of(self.api, pod)
            return decided(self.api, deployment, pod, covering, self._mark, self.now)
        except ApiFailure as failure:
            self.notes.add(
                f"Deployments or their pods are not read, so no surge is shown: {failure}"
            )
            return NOTHING

    @property
    def _mark(self) -> str:
        state = known_state(self.node)
        cordoned = state is not None and state.phase.cordoned
        return cordon_mark(self.node.uid, state.since if state and cordoned else 0)


def take_room(pod: Pod, covering: list[Budget], room: dict[str, int]) -> str:
    """Use up one disruption of the pod's budget; what it waits for when there is none.

    The order of checks is the API server's (pkg/registry/core/pod/storage/eviction.go): a pod
    that never ran passes, one that is not ready may pass without using the budget up.
    """
    if pod.phase == "Pending":
        return ""
    if len(covering) > 1:
        return "more than one PDB: " + ", ".join(sorted(budget.id for budget in covering))
    for budget in covering:
        if not pod.ready and (
            budget.always_allow_unhealthy or 0 < budget.desired <= budget.healthy
        ):
            return ""
        if room[budget.uid] <= 0:
            return f"PDB {budget.id} needs {budget.desired}, has {budget.healthy}"
        room[budget.uid] -= 1
    return ""


def ask_server(api: KubernetesApi, pod: Pod, notes: set[str]) -> str:
    """What the API server says to a dry-run eviction; empty = it would let the pod go."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": {"preconditions": {"uid": pod.uid}, "dryRun": ["All"]},
    }
    path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}/eviction"
    result = classify_eviction(api.send("POST", path, {"dryRun": "All"}, body))
    if result.outcome is Outcome.FORBIDDEN:
        notes.add("no permission to create pods/eviction: no dry-run eviction was sent")
        return ""
    return "" if result.outcome.over else f"{result.outcome.value}: {result.message}"


def blocker(pod: Pod, budgets: Iterable[Budget], now: float, surges: Surges) -> str:
    """What keeps the pod of a draining node there; empty = nothing is known."""
    if pod.deletion is not None:
        overdue = now > pod.deletion + STUCK_AFTER
        finalizers = f", finalizers {', '.join(pod.finalizers)}" if pod.finalizers else ""
        return f"terminating, overdue{finalizers}" if overdue else ""
    covering = [budget for budget in budgets if budget.covers(pod)]
    waits = take_room(pod, covering, {budget.uid: budget.allowed for budget in covering})
    surge = surges.of(pod, covering) if waits else NOTHING
    return "; ".join(filter(None, (waits, surge.text)))
