"""What one drain's check of the room leaves to the next one's, and signs of an autoscaler."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from selfheal_remediator.drain.free_capacity import ARRIVES_WITHIN, ROOM_KEPT, Move, Rooms
from selfheal_remediator.drain.population import MAX_LISTS
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.objects import Capacity, Node
from selfheal_remediator.kube.placement import placement_from_spec
from selfheal_remediator.kube.pods import Pod
from tests.pure.remediator import builders
from tests.pure.remediator.builders import NOW, datetime_text, pod
from tests.pure.remediator.running import pod as pod_json
from tests.support.sizes import objects_of


class _Pages:
    def __init__(self, raws: list[Any] | ApiFailure) -> None:
        self.raws = raws

    def pages(self, *, cached: bool = False) -> Iterator[tuple[list[Any], str]]:
        if isinstance(self.raws, ApiFailure):
            raise self.raws
        yield self.raws, "1"


class Api:
    """Nodes with these pods, the Leases of kube-system, and cluster-autoscaler's status."""

    def __init__(self) -> None:
        self.leases: list[Any] | ApiFailure = []
        self.pods: list[Any] | ApiFailure = []
        self.status: dict[str, Any] | ApiFailure | None = None
        self.pending: list[Any] | ApiFailure = []
        self.all_pods: list[Any] | ApiFailure = []
        self.spaces: list[Any] | ApiFailure = []
        self.lists: list[tuple[str, str]] = []

    def pods_of(self, node: str) -> _Pages:
        return _Pages(self.pods)

    def pods_labelled(self, namespace: str, selector: str) -> _Pages:
        """What the selector takes is the caller's to tell again."""
        self.lists.append((namespace, selector))
        return _Pages(self.all_pods)

    def pending_pods(self) -> _Pages:
        return _Pages(self.pending)

    def namespaces(self) -> _Pages:
        return _Pages(self.spaces)

    def leases_in(self, namespace: str) -> _Pages:
        return _Pages(self.leases if namespace == "kube-system" else [])

    def config_map(self, namespace: str, name: str) -> dict[str, Any] | None:
        assert (namespace, name) == ("kube-system", "cluster-autoscaler-status")
        if isinstance(self.status, ApiFailure):
            raise self.status
        return self.status


class World:
    """Rooms at a time that the test sets."""

    def __init__(self) -> None:
        self.api, self.now = Api(), 1000.0
        self.rooms = Rooms(self.api, lambda: self.now)  # type: ignore[arg-type]
        self.autoscaler = "auto"

    def check(self, uid: str, *pods: Pod, others: list[Node] | None = None) -> str:
        """What keeps the pods of that node where they are; its drain continues."""
        nodes = (builders.node(uid, uid=uid), *(others or [builders.node("other")]))
        move = Move(uid, pods, nodes, {})
        return self.rooms.check(move, self.autoscaler, NOW, threading.Event())


@pytest.fixture
def world() -> World:
    return World()


def _cpu(name: str, milli: int) -> Pod:
    return pod(name, requests=Capacity(milli, 0, 1))


def _there(name: str, milli: int) -> dict[str, Any]:
    raw = pod_json(name, "other")
    raw["metadata"]["uid"] = f"uid-{name}"
    raw["spec"]["containers"][0]["resources"] = {"requests": {"cpu": f"{milli}m"}}
    return raw


def test_a_check_that_failed_uses_up_nothing(world: World) -> None:
    assert "default/huge" in world.check("a", _cpu("small", 900), _cpu("huge", 5000))
    assert world.check("b", _cpu("web", 800)) == ""


def test_room_is_kept_for_a_drain_until_it_ends(world: World) -> None:
    assert world.check("a", _cpu("one", 900)) == ""
    assert world.check("b", _cpu("two", 900))
    world.rooms.release("a")
    assert world.check("c", _cpu("two", 900)) == ""


def test_a_check_before_the_drain_keeps_no_room(world: World) -> None:
    nodes = (builders.node("a", uid="a"), builders.node("other"))
    asked = Move("a", (_cpu("one", 900),), nodes, {}, reserves=False)
    assert world.rooms.check(asked, "auto", NOW, threading.Event()) == ""
    assert world.check("b", _cpu("two", 900)) == ""
    assert world.rooms.check(asked, "auto", NOW, threading.Event())
    world.rooms.release("b")
    assert world.rooms.check(asked, "auto", NOW, threading.Event()) == ""


def test_room_that_cannot_be_read_is_none(world: World) -> None:
    world.api.pods = ApiFailure(500, "InternalError", "etcd")
    assert world.check("a", _cpu("one", 1))


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("later", [ARRIVES_WITHIN, ROOM_KEPT + 1])
def test_a_pod_that_has_arrived_is_counted_once(world: World, later: float, ended: bool) -> None:
    assert world.check("a", _cpu("one", 500)) == ""
    world.rooms.pod_left("a", "uid-one")
    world.api.pods = [_there("one-again", 500)]
    if ended:
        world.rooms.release("a")
    world.now += later
    assert world.check("b", _cpu("two", 500)) == ""
    assert world.check("c", _cpu("three", 1))


@pytest.mark.parametrize("ended", [False, True])
def test_a_pod_that_has_left_and_not_arrived_keeps_its_room(world: World, ended: bool) -> None:
    """A StatefulSet's successor is made only when its predecessor is gone."""
    assert world.check("a", _cpu("one", 500)) == ""
    world.rooms.pod_left("a", "uid-one")
    if ended:
        world.rooms.release("a")
    world.now += ARRIVES_WITHIN / 2
    assert world.check("b", _cpu("two", 600))


def test_a_pod_that_has_not_left_keeps_its_room_however_long_it_takes(world: World) -> None:
    assert world.check("a", _cpu("one", 500), _cpu("slow", 300)) == ""
    world.rooms.pod_left("a", "uid-one")
    world.api.pods = [_there("one-again", 500)]
    world.now += 10 * ROOM_KEPT
    assert world.check("b", _cpu("two", 201))
    assert world.check("b", _cpu("two", 200)) == ""


def test_a_pod_that_arrived_elsewhere_than_expected_is_counted_there(world: World) -> None:
    others = [builders.node("x"), builders.node("y")]
    assert world.check("a", _cpu("filler", 1), others=[others[1]]) == ""  # y is known
    world.rooms.release("a")
    assert world.check("a", _cpu("one", 900), others=others) == ""
    world.rooms.pod_left("a", "uid-one")
    world.rooms.release("a")
    world.now += ARRIVES_WITHIN
    world.api.pods = [_there("one-again", 900)]  # on both, as far as is read
    assert world.check("b", _cpu("two", 900), others=others)


def test_the_end_of_a_drain_does_not_wait_for_a_check(world: World) -> None:
    """The main loop ends drains; reads of the API may take long."""
    ended = threading.Event()

    def hangs(node: str) -> _Pages:
        def ends() -> None:
            world.rooms.release("z")
            ended.set()

        threading.Thread(target=ends, daemon=True).start()
        assert ended.wait(30)
        return _Pages([])

    world.api.pods_of = hangs  # type: ignore[method-assign]
    assert world.check("a", _cpu("one", 1)) == ""


@pytest.mark.parametrize(
    ("name", "ago", "made"),
    [
        ("cluster-autoscaler", 5, True),
        ("karpenter-leader-election", 5, True),
        ("cluster-autoscaler", 86400, False),
        ("kube-scheduler", 5, False),
    ],
)
def test_an_autoscaler_that_renews_its_lease_makes_nodes(
    world: World, name: str, ago: int, made: bool
) -> None:
    spec = {"holderIdentity": "x", "renewTime": datetime_text(NOW - ago)}
    world.api.leases = [{"metadata": {"name": name}, "spec": spec}]
    assert (world.check("a", _cpu("huge", 5000)) == "") is made


def _go_time(ago: float) -> str:
    return datetime_text(NOW - ago).replace("T", " ").replace("Z", ".354884346 +0000 UTC")


def _status(annotation: str = "", heading: str = "") -> dict[str, Any]:
    annotations = {"cluster-autoscaler.kubernetes.io/last-updated": annotation}
    meta: dict[str, Any] = {"name": "cluster-autoscaler-status"}
    if annotation:
        meta["annotations"] = annotations
    return {"metadata": meta, "data": {"status": heading}} if heading else {"metadata": meta}


@pytest.mark.parametrize(
    ("status", "made"),
    [
        (_status(_go_time(12)), True),
        (_status(_go_time(12).replace("+0000", "-0700")), True),  # ahead of us, as clocks may be
        (_status(heading=f"Cluster-autoscaler status at {_go_time(12)}:\nCluster-wide:\n"), True),
        (_status(heading=f"time: {_go_time(12)}\nautoscalerStatus: Running\n"), True),
        (_status(heading=f'time: "{datetime_text(NOW - 12)}"\n'), True),
        (_status(_go_time(86400)), False),  # it was taken out of the cluster
        (_status(_go_time(86400), f"time: {_go_time(86400)}\n"), False),
        (_status(heading=f"  lastProbeTime: {_go_time(12)}\n"), False),
        (_status("soon"), False),
        (_status("2026-13-45 99:99:99 +0000 UTC"), False),
        (_status(), False),
        (None, False),
        (ApiFailure(403, "Forbidden", "no"), False),
    ],
)
def test_an_autoscaler_that_writes_its_status_makes_nodes(
    world: World, status: dict[str, Any] | ApiFailure | None, made: bool
) -> None:
    """Where the cloud runs it, its Lease is not in the cluster."""
    world.api.status = status
    assert (world.check("a", _cpu("huge", 5000)) == "") is made


def _renewed(when: float, name: str = "cluster-autoscaler") -> dict[str, Any]:
    spec = {"holderIdentity": "ca-1", "renewTime": datetime_text(when)}
    return {"metadata": {"name": name}, "spec": spec}


def _makes_nodes(world: World, sign: str, written: float) -> bool:
    """Whether an autoscaler is expected to make a node, after it wrote its sign then."""
    if sign == "lease":
        world.api.leases = [_renewed(NOW + written)]
    else:
        world.api.status = _status(_go_time(-written))
    return world.check("a", _cpu("huge", 5000)) == ""


@pytest.mark.parametrize("sign", ["lease", "status"])
@pytest.mark.parametrize("ahead", [-86400, 0, 200, 86400])
def test_an_autoscaler_with_any_clock_runs_while_what_it_writes_changes(
    world: World, ahead: float, sign: str
) -> None:
    """A time in our future does not count for ever, and one in our past is no sign of an end."""
    makes_nodes = partial(_makes_nodes, world, sign)

    assert makes_nodes(ahead) is (ahead >= 0)
    world.now += 301
    assert not makes_nodes(ahead)  # it has not written for so long
    world.now += 299
    assert makes_nodes(ahead + 1)  # it has
    world.now += 299
    assert makes_nodes(ahead + 1)
    world.now += 1
    assert not makes_nodes(ahead + 1)


@pytest.mark.parametrize("sign", ["lease", "status"])
@pytest.mark.parametrize("apart", [301, 86400, 30 * 86400])
def test_a_write_of_long_ago_is_no_change_between_two_reads(
    world: World, apart: int, sign: str
) -> None:
    """The autoscaler wrote once more after the first read, and was removed."""
    makes_nodes = partial(_makes_nodes, world, sign)

    long_ago = -90 * 86400.0
    assert not makes_nodes(long_ago)
    world.now += apart
    assert not makes_nodes(long_ago + 1)
    world.now += 60
    assert not makes_nodes(long_ago + 1)
    world.now += 60
    assert makes_nodes(long_ago + 2)  # but it writes now, by a clock of its own


def test_reads_of_the_same_are_reads_too(world: World) -> None:
    """It stood still for an hour in which it was read again and again, and is back."""
    world.api.leases = [_renewed(NOW - 86400)]
    for _ in range(12):
        assert world.check("a", _cpu("huge", 5000))
        world.now += 300
    world.api.leases = [_renewed(NOW - 86390)]
    assert world.check("a", _cpu("huge", 5000)) == ""


def test_a_lease_that_cannot_be_read_hides_no_autoscaler(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for broken in ({}, {"metadata": 5}, {"metadata": {"name": "x"}, "spec": {"renewTime": 5}}):
        world.api.leases = [broken, _renewed(NOW)]
        assert world.check("a", _cpu("huge", 5000)) == ""
        caplog.clear()
        assert world.check("b", _cpu("huge", 5000)) == ""
        assert not caplog.records


def test_a_pending_pod_that_cannot_be_read_stops_no_drain(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.api.pending = [{"metadata": {"name": "odd"}}, {"metadata": 5}]
    assert world.check("a", _cpu("small", 10)) == ""
    assert len(caplog.records) == 2
    world.now += 60
    assert world.check("b", _cpu("small", 10)) == ""
    assert len(caplog.records) == 2


def test_leases_that_cannot_be_listed_are_no_autoscaler(world: World) -> None:
    world.api.leases = ApiFailure(403, "Forbidden", "no")
    assert world.check("a", _cpu("huge", 5000))
    world.api.status = _status(_go_time(1))
    assert world.check("a", _cpu("huge", 5000)) == ""


@pytest.mark.parametrize(("setting", "made"), [("present", True), ("absent", False)])
def test_an_autoscaler_can_be_configured(world: World, setting: str, made: bool) -> None:
    world.api.leases = [
        {
            "metadata": {"name": "cluster-autoscaler"},
            "spec": {"holderIdentity": "x", "renewTime": datetime_text(NOW)},
        }
    ]
    world.autoscaler = setting
    karpenter = [builders.node("other", labels={"karpenter.sh/nodepool": "x"})]
    assert (world.check("a", _cpu("huge", 5000), others=karpenter) == "") is made


# -- pending pods --------------------------------------------------------------------------


def _pending(milli: int, **more: Any) -> dict[str, Any]:
    raw = _there("waiting", milli)
    del raw["spec"]["nodeName"]
    raw["spec"].update(more)
    raw["status"] = {"phase": "Pending"}
    return raw


@pytest.mark.parametrize(
    ("pending", "fits"),
    [
        (_pending(600), False),
        (_pending(600, priority=5), False),
        (_pending(600, priority=-5), True),  # ours goes first
        (_pending(600, schedulingGates=[{"name": "kueue"}]), True),
        (_pending(600, nodeSelector={"disk": "ssd"}), True),  # not on this node
        (_pending(5000), True),  # nowhere
        (_pending(100), True),
    ],
)
def test_a_pending_pod_takes_the_room_that_it_fits_in(
    world: World, pending: dict[str, Any], fits: bool
) -> None:
    world.api.pending = [pending]
    assert (world.check("a", _cpu("one", 600)) == "") is fits


def test_pending_pods_that_cannot_be_listed_are_reported(world: World) -> None:
    world.api.pending = ApiFailure(500, "InternalError", "etcd")
    assert "pending pods cannot be listed" in world.check("a", _cpu("one", 1))


# -- constraints towards other pods --------------------------------------------------------

ZONE = "topology.kubernetes.io/zone"
WEB = {"matchLabels": {"app": "web"}}


def _zoned(name: str, zone: str) -> Node:
    return builders.node(name, uid=name, labels={ZONE: zone, "kubernetes.io/hostname": name})


def _web(name: str, **spec: Any) -> Pod:
    return pod(name, placement=placement_from_spec(spec, "default", {"app": "web", "v": "1"}))


def _apart(**term: Any) -> dict[str, Any]:
    term = {"topologyKey": ZONE, "labelSelector": WEB, **term}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _runs(name: str, node: str, **labels: str) -> dict[str, Any]:
    raw = pod_json(name, node)
    raw["metadata"] |= {
        "uid": f"uid-{name}",
        "namespace": "default",
        "labels": {"app": "web"} | labels,
    }
    return raw


SPREAD = {
    "topologyKey": ZONE,
    "maxSkew": 1,
    "whenUnsatisfiable": "DoNotSchedule",
    "labelSelector": WEB,
}


def test_a_pod_alone_in_its_zone_goes_to_a_free_one(world: World) -> None:
    others = [_zoned("b", "b"), _zoned("c", "c")]
    world.api.all_pods = [_runs("x", "b")]
    assert world.check("a", _web("one", affinity=_apart()), others=others) == ""
    assert world.api.lists == [("default", "app in (web)")]
    world.rooms.release("a")
    world.api.all_pods = [_runs("x", "b"), _runs("y", "c")]
    text = world.check("a", _web("one", affinity=_apart()), others=others)
    assert "fit on none of 2" in text
    assert "cannot tell" not in text


def test_pods_that_are_spread_over_zones_are_counted(world: World) -> None:
    others = [_zoned("b", "b"), _zoned("c", "c")]
    world.api.all_pods = [_runs("x", "b"), _runs("y", "c")]
    one, two = (_web(name, topologySpreadConstraints=[SPREAD]) for name in ("one", "two"))
    assert world.check("a", one, two, others=others) == ""
    world.rooms.release("a")
    world.api.all_pods = [_runs("x", "b"), _runs("y", "b"), _runs("z", "c")]
    full = [others[0], replace(others[1], unschedulable=True)]
    assert world.check("a", one, others=full)  # zone c has the fewest, and no usable node
    assert world.check("a", one, others=others) == ""


def test_what_another_drain_moves_counts_where_it_goes(world: World) -> None:
    others = [_zoned("b", "b"), _zoned("c", "c")]
    for name in ("one", "two"):
        assert world.check(name, _web(name, affinity=_apart()), others=others) == ""
    assert world.check("three", _web("three", affinity=_apart()), others=others)


def test_the_number_of_lists_is_bounded(world: World) -> None:
    pods = []
    for number in range(MAX_LISTS + 1):
        selector = {"matchLabels": {"app": str(number)}}
        pods.append(_web(f"p{number}", affinity=_apart(labelSelector=selector)))
    text = world.check("a", *pods, others=[_zoned("b", "b")])
    assert len(world.api.lists) == MAX_LISTS
    assert f"need more than {MAX_LISTS} lists" in text


def test_peers_that_cannot_be_listed_are_reported(world: World) -> None:
    world.api.all_pods = ApiFailure(500, "InternalError", "etcd")
    text = world.check("a", _web("one", affinity=_apart()), others=[_zoned("b", "b")])
    assert "cannot tell for 1 of them (default/one: pods with app in (web) in default" in text


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ({"matchLabels": {"team": "a"}}, False),
        ({"matchLabels": {"team": "b"}}, True),
        ({"matchLabels": {"kubernetes.io/metadata.name": "default"}}, False),
        ({"matchLabels": {"kubernetes.io/metadata.name": "other"}}, True),
        ({}, False),
    ],
)
def test_namespaces_are_selected_by_their_labels(
    world: World, where: dict[str, Any], fits: bool
) -> None:
    world.api.spaces = [{"metadata": {"name": "default", "labels": {"team": "a"}}}]
    world.api.all_pods = [_runs("x", "b")]
    mine = _web("one", affinity=_apart(namespaceSelector=where))
    assert (world.check("a", mine, others=[_zoned("b", "b")]) == "") is fits
    assert world.api.lists == [("", "app in (web)")]


def test_namespaces_that_cannot_be_read_are_reported(world: World) -> None:
    world.api.spaces = ApiFailure(403, "Forbidden", "no")
    by_label = {"matchLabels": {"team": "a"}}
    mine = _web("one", affinity=_apart(namespaceSelector=by_label))
    text = world.check("a", mine, others=[_zoned("b", "b")])
    assert "namespaces cannot be listed" in text


def test_nothing_is_kept_of_what_was_read_for_the_last_check(world: World) -> None:
    """For months there may be no other one."""
    fresh, others = World(), [builders.node(f"n{number}") for number in range(50)]
    world.api.pods = world.api.pending = [_there("there", 10)]
    world.autoscaler = "absent"
    assert world.check("a", _cpu("p", 10**9), others=others)
    assert not world.check("b", _cpu("p", 10), others=others)
    world.rooms.pod_left("b", "uid-p")
    world.rooms.release("b")
    for _ in range(2):
        world.now += 2 * ROOM_KEPT
        world.rooms.forget_old()
    fresh.rooms.forget_old()
    world.api.pods = world.api.pending = []
    assert objects_of(world.rooms) <= objects_of(fresh.rooms) + 8
