"""What one drain's check of the room leaves to the next one's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from remediator.answers import ApiFailure
from remediator.drain import NodeDrain
from remediator.draining import Callbacks, Draining, Running
from remediator.pod_filters import Surroundings
from remediator.settings import Drain
from remediator.snapshot import Capacity, Node, Pod
from remediator.workers import Workers
from tests.pure.remediator import things
from tests.pure.remediator.things import NOW, datetime_text, pod


class _Pages:
    def __init__(self, raws: list[Any] | ApiFailure) -> None:
        self.raws = raws

    def pages(self, *, cached: bool = False) -> Iterator[tuple[list[Any], str]]:
        if isinstance(self.raws, ApiFailure):
            raise self.raws
        yield self.raws, "1"


class Api:
    """Nodes without pods, and the Leases of kube-system."""

    def __init__(self) -> None:
        self.leases: list[Any] | ApiFailure = []
        self.pods: list[Any] | ApiFailure = []

    def pods_of(self, node: str) -> _Pages:
        return _Pages(self.pods)

    def leases_in(self, namespace: str) -> _Pages:
        return _Pages(self.leases if namespace == "kube-system" else [])


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def drains(api: Api) -> Draining:
    nothing = Callbacks(*[lambda *_: None] * 6)  # type: ignore[arg-type]
    return Draining(
        api,  # type: ignore[arg-type]
        things.config(),
        Workers(1),
        lambda job: job(),
        "",
        nothing,
        lambda: NOW,
    )


AROUND = Surroundings(Drain())
OTHERS = [things.node("other")]


def _check(drains: Draining, name: str, *pods: Pod, others: list[Node] = OTHERS) -> str:
    """What keeps the pods of that node where they are; its drain goes on."""
    drain = NodeDrain(name, name, NOW, NOW + 600, AROUND)
    closed = threading.Event()
    source: Any = type("Source", (), {"close": lambda _: closed.set()})()
    run = Running(drain, source, others, checked=True)
    drains.running[name] = run
    return drains._no_room(run, list(pods), AROUND)


def _cpu(name: str, milli: int) -> Pod:
    return pod(name, requests=Capacity(milli, 0, 1))


def test_a_check_that_failed_uses_up_nothing(drains: Draining) -> None:
    assert "default/huge" in _check(drains, "a", _cpu("small", 900), _cpu("huge", 5000))
    assert _check(drains, "b", _cpu("web", 800)) == ""


def test_room_is_kept_for_a_drain_until_it_ends(drains: Draining) -> None:
    assert _check(drains, "a", _cpu("one", 900)) == ""
    assert _check(drains, "b", _cpu("two", 900))
    drains.end("a")
    assert _check(drains, "c", _cpu("two", 900)) == ""


def test_room_that_cannot_be_read_is_none(drains: Draining, api: Api) -> None:
    api.pods = ApiFailure(500, "InternalError", "etcd")
    assert _check(drains, "a", _cpu("one", 1))


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
    drains: Draining, api: Api, name: str, ago: int, made: bool
) -> None:
    spec = {"holderIdentity": "x", "renewTime": datetime_text(NOW - ago)}
    api.leases = [{"metadata": {"name": name}, "spec": spec}]
    assert (_check(drains, "a", _cpu("huge", 5000)) == "") is made


def test_leases_that_cannot_be_listed_are_no_autoscaler(drains: Draining, api: Api) -> None:
    api.leases = ApiFailure(403, "Forbidden", "no")
    assert _check(drains, "a", _cpu("huge", 5000))


@pytest.mark.parametrize(("setting", "made"), [("present", True), ("absent", False)])
def test_an_autoscaler_can_be_configured(
    drains: Draining, api: Api, setting: str, made: bool
) -> None:
    api.leases = [
        {
            "metadata": {"name": "cluster-autoscaler"},
            "spec": {"holderIdentity": "x", "renewTime": datetime_text(NOW)},
        }
    ]
    drains.config = things.config(drain={"autoscaler": setting})
    karpenter = [things.node("other", labels={"karpenter.sh/nodepool": "x"})]
    assert (_check(drains, "a", _cpu("huge", 5000), others=karpenter) == "") is made
