"""One object that cannot be read does not take the others with it, and is reported once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from selfheal_remediator.config import Drain
from selfheal_remediator.controller import node_feed
from selfheal_remediator.controller.claims_reader import Claims, ClaimsReader
from selfheal_remediator.controller.peers import Peers
from selfheal_remediator.drain.filters import Fate, Surroundings, sort_pod
from selfheal_remediator.drain.node_pods import node_pod_from_json
from selfheal_remediator.failures import ApiFailure, Malformed
from selfheal_remediator.healing.pod_health import watched_from_json
from selfheal_remediator.healing.policy import policy_from_json
from selfheal_remediator.kube.budgets import budget_from_json
from selfheal_remediator.kube.informer import Change, Reflector, WatchEvent
from selfheal_remediator.kube.lease import LeaseView, lease_from_json
from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.kube.pods import pod_from_json
from selfheal_remediator.node.external_claims import machines
from selfheal_remediator.node.planner import Planner
from selfheal_remediator.threads.runtime import Event
from tests.pure.remediator.api_objects import BUDGET, LEASE, NODE, POD, POLICY, Json
from tests.pure.remediator.builders import NOW, OWNER, condition, config, datetime_text, node

WRONG: tuple[Any, ...] = (None, 5, True, "text", ["text"], [5], [[]], {"a": []}, {"name": 5})


def _broken(good: Json, *, missing: bool = True) -> Iterator[Json]:
    """The object with each field, at any depth, of each wrong type, or missing."""
    yield from ({}, {"metadata": None}, {"metadata": []})
    for path in _paths(good):
        for value in WRONG:
            made = copy.deepcopy(good)
            _parent(made, path)[path[-1]] = value
            yield made
        if missing:
            made = copy.deepcopy(good)
            del _parent(made, path)[path[-1]]
            yield made


def _paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    keys = value if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield (*before, key)
        if isinstance(value[key], dict | list):
            yield from _paths(value[key], (*before, key))


def _parent(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


# -- Cluster API and medik8s -----------------------------------------------------------------


def _machine(name: str, **more: Any) -> Json:
    return {
        "metadata": {
            "name": name,
            "namespace": "m",
            "uid": f"u-{name}",
            "deletionTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"a": "b"},
        },
        "status": {
            "nodeRef": {"name": f"n-{name}"},
            "conditions": [{"type": "OwnerRemediated", "status": "False"}],
        },
        **more,
    }


GOOD = "Cluster API deletes its machine good"


@pytest.mark.parametrize("after", [True, False])
def test_a_machine_of_any_form_hides_no_other_machine(after: bool) -> None:
    others: list[Any] = [*_broken(_machine("other")), None, 5, "text", []]
    for other in others:
        both = [_machine("good"), other] if after else [other, _machine("good")]
        assert machines(both)["n-good"] == GOOD, other


@pytest.mark.parametrize("field", ["metadata", "conditions"])
def test_a_machine_that_cannot_be_read_claims_the_node_that_it_names(field: str) -> None:
    broken = _machine("other")
    if field == "metadata":
        broken["metadata"] = 5
    else:
        del broken["metadata"]["deletionTimestamp"]
        broken["status"]["conditions"] = "all of them"
    assert "may be changing its machine" in machines([broken])["n-other"]


class _Pages:
    def __init__(self, *raws: Any) -> None:
        self.raws = raws

    def pages(self, *, cached: bool = False) -> Iterator[tuple[list[Any], str]]:
        yield copy.deepcopy(list(self.raws)), "1"


@dataclass
class _ClaimsApi:
    ours: list[Any]
    maintenance: list[Any]
    found: list[Any]

    def leases(self, selector: str) -> _Pages:
        return _Pages(*self.ours)

    def leases_in(self, namespace: str) -> _Pages:
        return _Pages(*self.maintenance)

    def machines(self) -> _Pages:
        return _Pages(*self.found)


def _lease(name: str, namespace: str, **spec: Any) -> Json:
    raw = copy.deepcopy(LEASE)
    raw["metadata"] |= {"name": name, "namespace": namespace, "uid": f"u-{name}"}
    raw["spec"] |= spec
    return raw


def _read(api: _ClaimsApi, reader: ClaimsReader | None = None) -> Claims:
    made = reader or ClaimsReader(api, lambda: NOW)  # type: ignore[arg-type]
    return made.read(machines_wanted=True)


def test_claims_are_read_beside_one_of_each_kind_that_cannot_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = _lease("node-a", "medik8s-leases", holderIdentity="x", renewTime=datetime_text(NOW))
    broken = _machine("other", status={"nodeRef": {"name": "n-other"}, "conditions": 5})
    del broken["metadata"]["deletionTimestamp"]
    api = _ClaimsApi(
        [_lease("older", "b", leaseDurationSeconds="long"), _lease("good", "b")],
        [_lease("node-b", "medik8s-leases", leaseTransitions=[]), held],
        [broken, _machine("good")],
    )
    reader = ClaimsReader(api, lambda: NOW)  # type: ignore[arg-type]
    for _ in range(3):
        found = _read(api, reader)
        assert [lease.name for lease in found.leases] == ["good"]
        assert found.unread == {"b/older"}
        assert found.marks.keys() == {"a", "b", "n-good", "n-other"}
    assert sorted(record.message.split(":")[0] for record in caplog.records) == [
        "Lease b/older",
        "Lease medik8s-leases/node-b",
        "Machine m/other",
    ]


def test_a_machine_that_names_no_node_any_more_claims_the_one_that_it_had() -> None:
    healthy = _machine("other")
    del healthy["metadata"]["deletionTimestamp"], healthy["status"]["conditions"]
    api = _ClaimsApi([], [], [healthy])
    reader = ClaimsReader(api, lambda: NOW)  # type: ignore[arg-type]
    assert _read(api, reader).marks == {}
    api.found = [_machine("other", status=5)]
    assert _read(api, reader).marks.keys() == {"n-other"}


def _view(name: str, renewed: str = "1", holder: str = "pod") -> LeaseView:
    return LeaseView(name, "b", f"u-{name}", "1", holder, renewed, 0, 15.0, {}, 1.0)


def test_a_remediator_whose_lease_cannot_be_read_is_alive_and_as_it_was_read_last() -> None:
    peers = Peers("a/mine")
    assert peers.first([], NOW, frozenset({"b/new"})) == ""
    assert peers.live == {"b/new"}
    assert peers.first([_view("older")], NOW) == "b/older"
    assert peers.first([], NOW + 1, frozenset({"b/older"})) == "b/older"
    assert peers.first([], NOW + 999, frozenset({"b/older"})) == ""
    assert peers.live == {"b/older"}


def test_a_maintenance_lease_from_a_clock_ahead_ends_by_ours() -> None:
    ahead = _lease(
        "node-a",
        "medik8s-leases",
        holderIdentity="x",
        renewTime=datetime_text(NOW + 86400),
        leaseDurationSeconds=60,
    )
    api, now = _ClaimsApi([], [ahead], []), [NOW]
    reader = ClaimsReader(api, lambda: now[0])  # type: ignore[arg-type]
    assert _read(api, reader).marks.keys() == {"a"}
    now[0] += 119
    assert _read(api, reader).marks.keys() == {"a"}
    now[0] += 2
    assert _read(api, reader).marks == {}
    ahead["spec"]["renewTime"] = datetime_text(NOW + 86401)
    assert _read(api, reader).marks.keys() == {"a"}


# -- lists and watches -----------------------------------------------------------------------

KINDS: list[tuple[Callable[[Json], Any], Json]] = [
    (node_from_json, NODE),
    (pod_from_json, POD),
    (budget_from_json, BUDGET),
    (lease_from_json, LEASE),
    (watched_from_json, POD),
    (policy_from_json, POLICY),
]


class _Source:
    """A list, and then the events of a watch."""

    def __init__(self, *raws: Any) -> None:
        self.raws, self.events = list(raws), list[WatchEvent]()

    def pages(self) -> Iterator[tuple[list[Json], str]]:
        yield copy.deepcopy(self.raws), "9"

    def watch(self, version: str, stop: Event) -> Generator[WatchEvent, None, None]:
        yield from copy.deepcopy(self.events)
        stop.set()


class _Watching:
    def __init__(self, decode: Callable[[Json], Any], *raws: Any) -> None:
        self.source = _Source(*raws)
        self.changes: list[Change[Any]] = []
        self.failures: list[ApiFailure] = []
        self.stop = threading.Event()
        self.reflector: Reflector[Any] = Reflector(
            self.source,
            decode,
            lambda item: item.name,
            self.changes.append,
            lambda: None,
            self.failures.append,
            self.stop,
        )

    def run(self, *events: WatchEvent) -> None:
        self.source.events = list(events)
        self.stop.clear()
        self.reflector.run()


def _named(good: Json, name: str) -> Json:
    raw = copy.deepcopy(good)
    raw["metadata"] |= {"name": name, "uid": f"u-{name}"}
    return raw


def _unreadable(decode: Callable[[Json], Any], good: Json) -> list[Json]:
    found = []
    for raw in _broken(_named(good, "other")):
        try:
            decode(raw)
        except Malformed:
            found.append(raw)
    return found


@pytest.mark.parametrize(("decode", "good"), KINDS)
def test_the_others_of_a_list_are_known(decode: Callable[[Json], Any], good: Json) -> None:
    unreadable = _unreadable(decode, good)
    assert unreadable
    for other in unreadable:
        watching = _Watching(decode, other, _named(good, "good"))
        watching.reflector.relist()
        watching.reflector.relist()
        assert list(watching.reflector.items) == ["good"], other
        assert len(watching.failures) == 1, other


@pytest.mark.parametrize(("decode", "good"), KINDS)
def test_the_others_of_a_watch_are_heard_of(decode: Callable[[Json], Any], good: Json) -> None:
    other, later = _unreadable(decode, good)[-1], _named(good, "later")
    other["metadata"] = dict(_named(good, "other")["metadata"], labels=5, annotations=5, name=5)
    watching = _Watching(decode, _named(good, "good"), _named(good, "other"))
    watching.reflector.relist()
    watching.run(
        WatchEvent("MODIFIED", other), WatchEvent("MODIFIED", other), WatchEvent("ADDED", later)
    )
    assert watching.reflector.items.keys() == {"good", "other", "later"}
    assert len(watching.failures) == 1
    assert watching.reflector.unread.uids == {"u-other"}
    watching.run(WatchEvent("MODIFIED", _named(good, "other")))
    assert not watching.reflector.unread
    watching.run(WatchEvent("DELETED", other))
    assert watching.reflector.items.keys() == {"good", "later"}


def test_what_is_known_of_an_object_counts_until_it_can_be_read_again() -> None:
    watching = _Watching(node_from_json, _named(NODE, "good"), _named(NODE, "other"))
    watching.reflector.relist()
    for broken in ({**_named(NODE, "other"), "spec": 5}, {}, {"metadata": 5}):
        watching.source.raws[1] = broken
        watching.reflector.relist()
        assert watching.reflector.items.keys() == {"good", "other"}
    watching.source.raws[1:] = []
    watching.reflector.relist()
    assert watching.reflector.items.keys() == {"good"}


def test_an_event_that_does_not_say_what_it_is_about_has_everything_listed() -> None:
    watching = _Watching(node_from_json, _named(NODE, "good"))
    watching.reflector.relist()
    watching.source.raws.append(_named(NODE, "new"))
    nameless = {"metadata": {"resourceVersion": "10"}}
    stop = watching.stop
    watches = iter([[WatchEvent("ADDED", nameless)], []])

    def watch(version: str, _: threading.Event) -> Iterator[WatchEvent]:
        events = next(watches)
        if not events:
            stop.set()
        yield from events

    watching.source.watch = watch  # type: ignore[method-assign, assignment]
    stop.wait = lambda timeout=None: stop.is_set()  # type: ignore[method-assign]
    watching.reflector.run()
    assert watching.reflector.items.keys() == {"good", "new"}


class _Counted:
    """A node that counts how often it is asked who it is."""

    asked = 0

    def __init__(self, raw: Json) -> None:
        node = node_from_json(raw)
        self.name, self._uid = node.name, node.uid

    @property
    def uid(self) -> str:
        _Counted.asked += 1
        return self._uid


def test_many_nodes_that_cannot_be_read_are_counted_once_a_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(node_feed, "node_from_json", _Counted)
    number = 300
    raws = [_named(NODE, f"n{n}") for n in range(number)]
    raws += [{**_named(NODE, f"u{n}"), "spec": 5} for n in range(number)]
    source = _Source(*raws)
    left_out: list[int] = []
    planner: Any = SimpleNamespace(leave_out=left_out.append, apply=lambda *_: None)
    writer: Any = SimpleNamespace(node_seen=lambda *_, **__: None)
    none: Any = None
    api: Any = SimpleNamespace(nodes=lambda: source)

    monkeypatch.setattr(node_feed.NodeFeed, "listed", lambda _: None)
    stop = threading.Event()
    feed = node_feed.NodeFeed(
        api, planner, writer, none, none, lambda job: job(), none, lambda: NOW, stop
    )
    _Counted.asked = 0
    feed.informer.relist()
    assert left_out[-1] == number
    assert _Counted.asked <= 10 * number


def test_an_unread_node_that_is_deleted_is_left_out_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where nothing else changes: the limits would count it as out of service on and on."""
    monkeypatch.setattr(node_feed.NodeFeed, "all_known", lambda *_: None)
    unread = {**_named(NODE, "unread"), "spec": 5}
    source, left_out = _Source(_named(NODE, "good"), unread), list[int]()
    source.events = [WatchEvent("DELETED", unread)]
    planner: Any = SimpleNamespace(
        leave_out=left_out.append, apply=lambda *_: None, listed=lambda *_: []
    )
    writer: Any = SimpleNamespace(node_seen=lambda *_, **__: None)
    none: Any = None
    api: Any = SimpleNamespace(nodes=lambda: source)
    feed = node_feed.NodeFeed(
        *(api, planner, writer, none, none, lambda job: job(), none, lambda: NOW),
        threading.Event(),
    )
    feed.informer.run()
    assert left_out[-2:] == [1, 0]


def test_what_is_left_out_is_counted_through_every_change() -> None:
    watching = _Watching(node_from_json, _named(NODE, "good"), {**_named(NODE, "new"), "spec": 5})
    reflector = watching.reflector
    reflector.relist()
    assert reflector.left_out == 1

    def heard(kind: str, raw: Json) -> int:
        watching.run(WatchEvent(kind, raw))
        return reflector.left_out

    assert heard("MODIFIED", {**_named(NODE, "good"), "spec": 5}) == 1  # known from before
    assert heard("ADDED", {**_named(NODE, "other"), "spec": 5}) == 2
    assert heard("MODIFIED", {**_named(NODE, "other"), "spec": 5}) == 2
    assert heard("MODIFIED", _named(NODE, "other")) == 1
    assert heard("DELETED", {**_named(NODE, "new"), "spec": 5}) == 0
    again = _named(NODE, "good")
    again["metadata"]["uid"] = "u-again"
    assert heard("ADDED", again) == 0
    assert "u-good" not in reflector.unread.uids
    watching.source.raws[:] = [again, {**_named(NODE, "gone"), "spec": 5}, {"metadata": 5}]
    reflector.relist()
    assert reflector.left_out == 2


# -- what is unknown does not make room ------------------------------------------------------


def test_a_node_that_cannot_be_read_counts_as_out_of_service() -> None:
    planner = Planner(config(limits={"maxUnavailable": 1, "minAllowed": 0}), OWNER, 0.0)
    bad = node("bad", condition("True"))
    for item in (bad, *(node(f"n{i}", condition("False")) for i in range(5))):
        planner.apply(Change(item.name, None, item), NOW)
    planner.leave_out(1)
    made = planner.plan(NOW)
    assert (made.actions, dict(made.limited_by)) == ((), {"unavailable": 1})
    planner.leave_out(0)
    assert [action.node for action in planner.plan(NOW).actions] == ["bad"]


def test_a_pod_that_cannot_be_read_stays_on_its_node() -> None:
    raw = {**copy.deepcopy(POD), "spec": 5}
    found = node_pod_from_json(raw)
    sorting = sort_pod(found, Surroundings(Drain()), NOW)
    assert (found.id, sorting.fate) == ("d/p1", Fate.STAY)
    assert "a Pod cannot be read" in sorting.reason
    raw["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert sort_pod(node_pod_from_json(raw), Surroundings(Drain()), NOW).fate is Fate.EVICT


@pytest.mark.parametrize("field", ["uid", "name", "namespace"])
def test_a_pod_that_does_not_say_which_it_is_refuses_the_list(field: str) -> None:
    raw = copy.deepcopy(POD)
    raw["metadata"][field] = 5
    with pytest.raises(ApiFailure):
        _Watching(node_pod_from_json, _named(POD, "good"), raw).reflector.relist()
