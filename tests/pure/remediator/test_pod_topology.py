"""Affinity, anti-affinity and spread, against the scheduler's rules applied by brute force."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfheal_remediator.drain.headroom import Room, place
from selfheal_remediator.drain.topology import Population, Resident
from selfheal_remediator.kube.objects import Capacity, Node, Taint
from selfheal_remediator.kube.placement import placement_from_spec
from selfheal_remediator.kube.pods import Pod
from tests.pure.remediator import builders

ZONE, HOST = "zone", "kubernetes.io/hostname"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
KEYS = (ZONE, HOST)
CORDON = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")
SELECTORS: list[dict[str, Any] | None] = [
    {"matchLabels": {"app": "a"}},
    {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]},
    {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
    {},
    None,
]
SPACES = {"x": {"team": "1"}, "y": {"team": "2"}}

TERMS = st.fixed_dictionaries(
    {"topologyKey": st.sampled_from(KEYS), "labelSelector": st.sampled_from(SELECTORS)},
    optional={
        "namespaces": st.sampled_from([["x"], ["x", "y"], []]),
        "namespaceSelector": st.sampled_from([{}, {"matchLabels": {"team": "2"}}]),
        "matchLabelKeys": st.just(["v"]),
        "mismatchLabelKeys": st.just(["v"]),
    },
)
SPREADS = st.fixed_dictionaries(
    {
        "topologyKey": st.sampled_from(KEYS),
        "labelSelector": st.sampled_from(SELECTORS[:4]),
        "maxSkew": st.integers(1, 2),
        "whenUnsatisfiable": st.just("DoNotSchedule"),
    },
    optional={
        "minDomains": st.integers(1, 4),
        "nodeAffinityPolicy": st.sampled_from(["Honor", "Ignore"]),
        "nodeTaintsPolicy": st.sampled_from(["Honor", "Ignore"]),
        "matchLabelKeys": st.just(["v"]),
    },
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "affinity": st.fixed_dictionaries(
            {},
            optional={
                kind: st.fixed_dictionaries({REQUIRED: st.lists(TERMS, max_size=2)})
                for kind in ("podAffinity", "podAntiAffinity")
            },
        ),
        "topologySpreadConstraints": st.lists(SPREADS, max_size=2),
    },
)
NODES = st.lists(
    st.tuples(
        st.sampled_from([None, "1", "2", "3"]),  # its zone
        st.sampled_from(["", "ssd"]),
        st.sampled_from([(), (Taint("t", "", "NoSchedule"),)]),
        st.booleans(),  # cordoned
    ),
    min_size=1,
    max_size=5,
)
PODS = st.lists(
    st.tuples(
        SPECS,
        st.sampled_from(["x", "y"]),
        st.sampled_from([{"app": "a"}, {"app": "b"}, {"app": "a", "v": "1"}, {}]),
        st.integers(0, 4),  # its node
        st.booleans(),  # terminating
        st.sampled_from([{}, {"disk": "ssd"}]),
        st.booleans(),  # tolerates the taint
    ),
    min_size=1,
    max_size=7,
)


def _node(number: int, zone: str | None, disk: str, taints: Any, cordoned: bool) -> Node:
    labels = {HOST: f"n{number}", "disk": disk}
    labels |= {ZONE: zone} if zone else {}
    return builders.node(f"n{number}", labels=labels, taints=taints, unschedulable=cordoned)


def _matches(selector: dict[str, Any] | None, labels: Any) -> bool:
    if selector is None:
        return False
    same = all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())
    for item in selector.get("matchExpressions", ()):
        there = labels.get(item["key"])
        same &= {
            "NotIn": there not in item.get("values", ()),
            "Exists": there is not None,
        }[item["operator"]]
    return same


class _Scheduler:
    """The rules as they are written down, applied to all pods each time."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.pods: list[tuple[Pod, dict[str, Any], Node]] = []

    def allows(self, pod: Pod, spec: dict[str, Any], node: Node) -> bool:
        wanted = spec.get("affinity", {})
        terms = {k: wanted.get(k, {}).get(REQUIRED, []) for k in ("podAffinity", "podAntiAffinity")}
        for other, theirs, where in self.pods:
            kept = theirs.get("affinity", {}).get("podAntiAffinity", {}).get(REQUIRED, [])
            if any(_means(t, other, pod) and _together(t, where, node) for t in kept):
                return False
            if any(
                _means(t, pod, other) and _together(t, where, node)
                for t in terms["podAntiAffinity"]
            ):
                return False
        return self._beside(pod, terms["podAffinity"], node) and all(
            self._even(pod, spec, item, node) for item in spec.get("topologySpreadConstraints", ())
        )

    def _beside(self, pod: Pod, terms: list[dict[str, Any]], node: Node) -> bool:
        if any(term["topologyKey"] not in node.labels for term in terms):
            return False
        group = [w for o, _, w in self.pods if all(_means(t, pod, o) for t in terms)]
        if all(any(_together(t, where, node) for where in group) for t in terms):
            return True
        counted = [t for t in terms for where in group if t["topologyKey"] in where.labels]
        return not counted and all(_means(t, pod, pod) for t in terms)

    def _even(self, pod: Pod, spec: dict[str, Any], item: dict[str, Any], node: Node) -> bool:
        key = item["topologyKey"]
        if key not in node.labels:
            return False
        keys = [other["topologyKey"] for other in spec["topologySpreadConstraints"]]
        counts: dict[str, int] = {}
        for other in self.nodes:
            if all(k in other.labels for k in keys) and _included(item, pod, other):
                counts.setdefault(other.labels[key], 0)
                counts[other.labels[key]] += sum(
                    where is other and found.deletion is None and _means(item, pod, found)
                    for found, _, where in self.pods
                )
        fewest = min(counts.values(), default=0)
        if len(counts) < item.get("minDomains", 1):
            fewest = 0
        there = counts.get(node.labels[key], 0) + _means(item, pod, pod)
        return bool(there - fewest <= item["maxSkew"])


def _included(item: dict[str, Any], pod: Pod, node: Node) -> bool:
    if item.get("nodeAffinityPolicy") != "Ignore" and any(
        node.labels.get(k) != v for k, v in pod.node_selector.items()
    ):
        return False
    taints = [*node.taints, *([CORDON] if node.unschedulable else [])]
    tolerated = [key for key, *_ in pod.tolerations]
    return item.get("nodeTaintsPolicy") != "Honor" or all(t.key in tolerated for t in taints)


def _means(term: dict[str, Any], owner: Pod, pod: Pod) -> bool:
    if not _matches(term["labelSelector"], pod.labels):
        return False
    for key in term.get("matchLabelKeys", ()):
        if key in owner.labels and pod.labels.get(key) != owner.labels[key]:
            return False
    for key in term.get("mismatchLabelKeys", ()):
        if key in owner.labels and pod.labels.get(key) == owner.labels[key]:
            return False
    named, where = term.get("namespaces") or [], term.get("namespaceSelector")
    if not named and where is None:
        return pod.namespace == owner.namespace
    return pod.namespace in named or (where is not None and _matches(where, SPACES[pod.namespace]))


def _together(term: dict[str, Any], one: Node, other: Node) -> bool:
    key = term["topologyKey"]
    return key in one.labels and one.labels.get(key) == other.labels.get(key)


def _pods(raws: list[Any]) -> list[tuple[Pod, dict[str, Any], int]]:
    found = []
    for number, (spec, namespace, labels, where, ends, selector, tolerates) in enumerate(raws):
        made = builders.pod(
            f"p{number}",
            namespace=namespace,
            labels=labels,
            deletion=1.0 if ends and number else None,
            placement=placement_from_spec(spec, namespace, labels),
            node_selector=selector,
            tolerations=(("t", "Exists", "", ""),) if tolerates else (),
            requests=Capacity(0, 0, 1),
        )
        found.append((made, spec, where))
    return found


@settings(max_examples=400)
@given(NODES, PODS)
def test_one_pod_is_let_in_where_the_scheduler_would(nodes: list[Any], raws: list[Any]) -> None:
    there = [_node(i, *raw) for i, raw in enumerate(nodes)]
    (coming, spec, _), *others = _pods(raws)
    scheduler = _Scheduler(there)
    known = Population(there, SPACES.get)
    for number, (pod, theirs, where) in enumerate(others):
        node = there[where % len(there)]
        scheduler.pods.append((pod, theirs, node))
        known.add(Resident.of(pod), node)
        if number % 2:  # whether it is counted at once or as it comes makes no difference
            known.allows(coming, node)
    for node in there:
        assert known.allows(coming, node) is scheduler.allows(coming, spec, node)


@given(NODES, PODS)
def test_whatever_is_placed_the_scheduler_would_place(nodes: list[Any], raws: list[Any]) -> None:
    there = [_node(i, *raw) for i, raw in enumerate(nodes)]
    pods = _pods(raws)
    specs = {pod.uid: spec for pod, spec, _ in pods}
    scheduler, known = _Scheduler(there), Population(there, SPACES.get)
    left = [replace(pod, deletion=None) for pod, _, _ in pods]
    for node in there:
        before = left
        left = place(left, Room.of(node, []), {}, known)
        kept = {pod.uid for pod in left}
        for pod in before:  # equal in size: placed in this order
            if pod.uid not in kept:
                assert scheduler.allows(pod, specs[pod.uid], node)
                scheduler.pods.append((pod, specs[pod.uid], node))


def test_a_spread_that_leaves_out_tainted_nodes_does_not_count_the_cordoned_one() -> None:
    """By default the drained node is still a domain, with no pod in it."""
    item = {
        "topologyKey": HOST,
        "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    there = [_node(0, None, "", (), True), _node(1, None, "", (), False)]
    for policy, fits in (("Ignore", False), ("Honor", True)):
        known = Population(there)
        known.add(Resident.of(builders.pod("x")), there[1])
        spec = {"topologySpreadConstraints": [{**item, "nodeTaintsPolicy": policy}]}
        asking = builders.pod("y", placement=placement_from_spec(spec, "default"))
        assert known.allows(asking, there[1]) is fits


@pytest.mark.parametrize("unknown", [True, False])
def test_a_pod_whose_terms_cannot_be_known_keeps_others_away(unknown: bool) -> None:
    where = {"matchLabels": {"team": "1"}}
    term = {"topologyKey": ZONE, "labelSelector": {}, "namespaceSelector": where}
    spec = {"affinity": {"podAntiAffinity": {REQUIRED: [term]}}}
    node = _node(0, "1", "", (), False)
    known = Population([node]) if unknown else Population([node], {"default": {}}.get)
    known.add(Resident.of(builders.pod("x", placement=placement_from_spec(spec, "other"))), node)
    assert known.allows(builders.pod("y"), node) is not unknown
