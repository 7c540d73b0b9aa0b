"""Whether pods fit elsewhere."""

from hypothesis import given
from hypothesis import strategies as st

from remediator.headroom import Room, autoscaled, describe, place, tolerated, usable
from remediator.snapshot import Capacity, Taint
from tests.pure.remediator.things import node, pod

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
    assert not tainted.holds(pod())
    assert tainted.holds(pod(tolerations=(("gpu", "Exists", "", ""),)))
    soft = Room.of(node(taints=(Taint("gpu", "", "PreferNoSchedule"),)), [])
    assert soft.holds(pod())
    assert not Room.of(node(), []).holds(pod(node_selector={"disk": "ssd"}))
    assert Room.of(node(labels={"disk": "ssd"}), []).holds(pod(node_selector={"disk": "ssd"}))


def test_tolerations() -> None:
    assert tolerated(pod(tolerations=(("", "Exists", "", ""),)), "any", "x", "NoExecute")
    assert tolerated(pod(tolerations=(("a", "Equal", "1", ""),)), "a", "1", "NoSchedule")
    assert not tolerated(pod(tolerations=(("a", "Equal", "2", ""),)), "a", "1", "NoSchedule")
    assert not tolerated(
        pod(tolerations=(("a", "Exists", "", "NoExecute"),)), "a", "", "NoSchedule"
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
