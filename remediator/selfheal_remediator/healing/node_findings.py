"""Which nodes are at fault by their pods, and which pods are left to the rules for nodes. Pure.

The findings are of all policies' pods at one moment, and bind every policy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial

from selfheal_remediator.healing.correlation import correlate
from selfheal_remediator.healing.node_evidence import (
    complete,
    is_unprobed,
    observations,
    undecided,
    unlisted,
)
from selfheal_remediator.healing.plan import Around, Finding
from selfheal_remediator.healing.pod_health import WatchedPod
from selfheal_remediator.healing.policy_state import Group, PolicyState
from selfheal_remediator.node.skip_reason import SkipReason

#: Seconds for which pods are left to the rules for their node before they are healed one by one.
NODE_PATIENCE = 600.0
#: How long (seconds) a node's trouble is remembered after its end; longer than any symptom lasts.
TROUBLE_KEPT = 86400.0


class NodeFindings:
    """interval: seconds between evaluations. once: there will be a single one."""

    def __init__(self, interval: float, *, once: bool) -> None:
        self._interval, self._once = interval, once
        self._found: dict[str, Finding] = {}
        #: When each node last had trouble: the state of its pods is outdated for a while.
        self._troubled: dict[str, float] = {}
        #: When everything was last stopped; since when the policies are waited for.
        self._stopped_at = float("-inf")
        self._unlisted_since: float | None = None

    @property
    def by_node(self) -> Mapping[str, Finding]:
        """The nodes that are at fault."""
        return self._found

    def node_gone(self, name: str) -> None:
        """The node was deleted: findings on a recreated node of its name start from scratch."""
        self._found = {node: found for node, found in self._found.items() if node != name}

    def begin_evaluation(self, around: Around, now: float) -> None:
        """Note whether anything may be restarted, and whether all policies are known."""
        if around.stopped:
            self._stopped_at = now
        if around.listed:
            self._unlisted_since = None
        elif self._unlisted_since is None:
            self._unlisted_since = now

    def update(
        self,
        evaluated: Collection[PolicyState],
        policy_states: Collection[PolicyState],
        around: Around,
        now: float,
    ) -> None:
        """Find nodes with unhealthy pods of several owners whose pods elsewhere are healthy.

        evaluated: the policies whose pods were evaluated just now.
        """
        self._note_trouble(evaluated, around, now)
        self._found = correlate(
            self._found,
            observations(
                policy_states,
                self._found,
                partial(self._had_trouble_lately, now=now),
                partial(is_unprobed, now=now, interval=self._interval),
                now,
                self._interval,
            ),
            now,
            complete=around.listed and complete(policy_states, now),
        )

    def _note_trouble(self, evaluated: Collection[PolicyState], around: Around, now: float) -> None:
        for node in {pod.node for policy in evaluated for pod in policy.pods.values()}:
            if around.node_trouble(node):
                self._troubled[node] = now
        for node, when in list(self._troubled.items()):
            if now - when > TROUBLE_KEPT:
                del self._troubled[node]

    def had_trouble_since(self, node: str, moment: float) -> bool:
        """Whether the node has had trouble since then."""
        return self._troubled.get(node, 0.0) >= moment

    def skip_reason(
        self,
        policy_state: PolicyState,
        group: Group,
        pod: WatchedPod,
        policy_states: Collection[PolicyState],
        around: Around,
        now: float,
    ) -> SkipReason | None:
        """Why the pod is not restarted because of its node, None = it may be."""
        trouble = around.node_trouble(pod.node)
        if not trouble and self._had_trouble_lately(policy_state, pod, now):
            trouble = "it was unhealthy until a moment ago"
        if trouble:
            return SkipReason("node", f"node {pod.node}: {trouble}")
        if not around.node_path(pod.node):
            return None
        finding = self._found.get(pod.node)
        if finding is not None and now < max(finding.since, self._stopped_at) + NODE_PATIENCE:
            return SkipReason("node-finding", f"node {pod.node}: {finding.text}")
        if finding is not None or self._once:
            return None
        since = policy_state.free_since.setdefault(pod.uid, now)
        text = unlisted(policy_states, around, now, self._unlisted_since or now) or undecided(
            policy_states, group, pod.node, now, since, self._interval
        )
        return SkipReason("unobserved", f"node {pod.node}: {text}") if text else None

    def _had_trouble_lately(self, policy_state: PolicyState, pod: WatchedPod, now: float) -> bool:
        """Whether the pod's node had trouble so recently that the pod must be evaluated again.

        When a lost node is back, its pods still count as unready for the time of its outage.
        """
        until = self._troubled.get(pod.node)
        if until is None:
            return False
        lasting = policy_state.observations[pod.uid].diagnosis.lasting
        return now < until + lasting + policy_state.policy.failure_threshold * self._interval
