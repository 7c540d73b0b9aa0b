"""Whether pods fit elsewhere."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.drain.headroom import Room, autoscaled, describe, place, tied, usable
from selfheal_remediator.drain.topology import tolerated
from selfheal_remediator.kube.objects import Capacity, Taint
from selfheal_remediator.kube.placement import Placement, node_terms, placement_from_spec
from tests.pure.remediator.builders import node, pod

SIZES = st.builds(Capacity, cpu=st.integers(0, 800), memory=st.integers(0, 2**30), pods=st.just(1))


@given(st.lists(SIZES, max_size=20), st.lists(SIZES, max_size=20))
def test_nothing_is_placed_beyond_what_is_free(
    there: list[Capacity], coming: list[Capacity]
) -> None:
    room = Room.of(node(), [pod(f"t{i}", requests=size) for i, size in enumerate(there)])
    full = room.cpu < 0 or room.memory < 0
    pods = [pod(f"c{i}", requests=size) for i, size in enumerate(coming)]
    left = place(pods, room)
    placed = [item for item in pods if item not in left]
    assert not (full and any(item.requests.cpu or item.requests.memory for item in placed))
    if placed and not full:
        assert room.cpu >= 0
        assert room.memory >= 0
        assert room.pods >= 0
    assert len(left) + len(placed) == len(pods)


def test_finished_pods_take_no_room() -> None:
    assert Room.of(node(), [pod(phase="Succeeded")]).pods == 110


def test_selectors_and_taints_are_respected() -> None:
    tainted = Room.of(node(taints=(Taint("gpu", "", "NoSchedule"),)), [])
    assert not tainted.admits(pod())
    assert tainted.admits(pod(tolerations=(("gpu", "Exists", "", ""),)))
    soft = Room.of(node(taints=(Taint("gpu", "", "PreferNoSchedule"),)), [])
    assert soft.admits(pod())
    assert not Room.of(node(), []).admits(pod(node_selector={"disk": "ssd"}))
    assert Room.of(node(labels={"disk": "ssd"}), []).admits(pod(node_selector={"disk": "ssd"}))


def test_tolerations() -> None:
    assert tolerated(pod(tolerations=(("", "Exists", "", ""),)), Taint("any", "x", "NoExecute"))
    assert tolerated(pod(tolerations=(("a", "Equal", "1", ""),)), Taint("a", "1", "NoSchedule"))
    assert not tolerated(pod(tolerations=(("a", "Equal", "2", ""),)), Taint("a", "1", "NoSchedule"))
    assert not tolerated(
        pod(tolerations=(("a", "Exists", "", "NoExecute"),)), Taint("a", "", "NoSchedule")
    )


def test_which_nodes_may_be_used() -> None:
    assert usable(node())
    assert not usable(node(unschedulable=True))
    assert not usable(node(deleting=True))


def test_signs_of_an_autoscaler() -> None:
    assert not autoscaled([node()])
    assert autoscaled([node(labels={"karpenter.sh/nodepool": "x"})])


def test_the_text_names_pods_and_sums() -> None:
    text = describe([pod(str(number)) for number in range(5)], 3)
    assert text == (
        "5 pods (default/0, default/1, default/2, …; 500m CPU, 5 MiB requested) fit on none of "
        "3 usable nodes"
    )


def test_every_resource_is_counted() -> None:
    gpu = pod(requests=Capacity(100, 0, 1, (("nvidia.com/gpu", 8),)))
    assert not Room.of(node(), []).admits(gpu)
    room = Room.of(node(allocatable=Capacity(1000, 2**30, 110, (("nvidia.com/gpu", 8),))), [])
    assert room.admits(gpu)
    assert not Room.of(room.node, [gpu]).admits(gpu)
    assert "8 nvidia.com/gpu" in describe([gpu], 1)


def _term(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def _asking(**spec: Any) -> Placement:
    return placement_from_spec(spec, "default")


def test_pods_that_must_be_apart_are() -> None:
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    apart = _asking(
        affinity={"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    )
    one, plain = pod("a", placement=apart), pod("b")
    assert not Room.of(node(), [plain]).admits(one)
    assert not Room.of(node(), [one]).admits(plain)
    assert Room.of(node(), [pod(labels={"app": "db"})]).admits(one)
    assert Room.of(node(), [pod(namespace="other")]).admits(one)
    assert place([one, pod("c", placement=apart)], Room.of(node(), []))


def test_spread_over_hosts_is_kept_to_the_allowed_skew() -> None:
    constraint = {
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "maxSkew": 2,
        "labelSelector": {"matchLabels": {"app": "web"}},
    }
    spread = _asking(topologySpreadConstraints=[constraint])
    assert Room.of(node(), [pod("a")]).admits(pod("b", placement=spread))
    assert not Room.of(node(), [pod("a"), pod("c")]).admits(pod("b", placement=spread))
    soft = _asking(
        topologySpreadConstraints=[{**constraint, "whenUnsatisfiable": "ScheduleAnyway"}]
    )
    assert soft == Placement()


@pytest.mark.parametrize(
    "spec",
    [
        {"resourceClaims": [{"name": "gpu"}]},
        {"schedulerName": "volcano"},
    ],
)
def test_what_cannot_be_known_is_no_yes_and_is_named(spec: dict[str, Any]) -> None:
    asking = pod(placement=placement_from_spec(spec, "default"))
    assert not Room.of(node(), []).admits(asking)
    assert "cannot tell for 1 of them (default/p: " in describe([asking], 1)


def test_host_ports_are_taken_once() -> None:
    ports = _asking(containers=[{"ports": [{"containerPort": 80, "hostPort": 80}]}])
    assert not Room.of(node(), [pod("a", placement=ports)]).admits(pod("b", placement=ports))


@pytest.mark.parametrize(
    "key",
    [
        "kubernetes.io/hostname",
        "topology.topolvm.io/node",
        "openebs.io/nodename",
        "topology.directpv.min.io/node",
        "linbit.com/hostname",
        "example.com/anything",
    ],
)
def test_a_volume_that_no_other_node_can_use_ties_its_pod(key: str) -> None:
    terms = node_terms({"nodeSelectorTerms": [_term(key, "In", "a")]})
    assert tied(terms, [node("b", labels={key: "b"}), node("c")])
    assert not tied(terms, [node("b", labels={key: "a"})])
    assert tied(terms, [node("b", labels={key: "a"}, unschedulable=True)])
    assert not tied(None, [])
    claimed = pod(claims=("data",))
    room = Room.of(node("b", labels={key: "b"}), [])
    assert not room.admits(claimed, {("default", "data"): terms})


def test_a_zone_gets_a_node_where_nodes_are_made() -> None:
    terms = node_terms({"nodeSelectorTerms": [_term("topology.kubernetes.io/zone", "In", "a")]})
    assert tied(terms, [node("b")])
    assert not tied(terms, [node("b", labels={"karpenter.sh/nodepool": "x"})])
