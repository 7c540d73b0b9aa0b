"""Events tell of what was done and never stand in its way."""

from __future__ import annotations

import re
import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.events import (
    BACKLOG,
    MAX_MESSAGE,
    MOST_RECENT,
    MOST_SAID,
    QUEUE,
    EventWriter,
    NodeEvent,
    ObjectEvent,
    Reported,
)
from selfheal_remediator.kube.responses import Answer
from tests.pure.remediator.fake_runtime import FakeRuntime
from tests.support.waiting import until

CORDONED = NodeEvent("n1", "uid-1", "Cordoned", "cordoned: why", True)


class Api:
    """Takes Events, or fails in the way that is set."""

    def __init__(self) -> None:
        self.written: list[tuple[str, Any, bool]] = []
        self.failing: Answer | ApiFailure | None = None

    def write(
        self, method: str, path: str, body: object, *, timeout: float = 0, fenced: bool = True
    ) -> Answer:
        assert (method, timeout) == ("POST", 10.0)
        self.written.append((path, body, fenced))
        if isinstance(self.failing, ApiFailure):
            raise self.failing
        return self.failing or Answer(201, b"{}")

    def settle(self, seconds: float) -> bool:
        return True


def recorded(*events: NodeEvent | ObjectEvent, api: Api | None = None) -> tuple[Api, Counter[str]]:
    """All of them recorded, and written or lost."""
    made, counts = api or Api(), Counter[str]()
    lock = threading.Lock()

    def count(result: str) -> None:
        with lock:
            counts[result] += 1

    writer = EventWriter(made, "pod-1_uid", count)
    for event in events:
        writer.record(event)
    writer.start()
    writer.close(30.0)
    return made, counts


def test_an_event_names_its_node_by_uid_so_that_describe_finds_it() -> None:
    api, counts = recorded(CORDONED)
    [(path, body, fenced)] = api.written
    assert path == "/api/v1/namespaces/default/events"
    about = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "uid-1"}
    assert body["involvedObject"] == about
    assert (body["reason"], body["type"]) == ("Cordoned", "Warning")
    assert body["reportingComponent"] == body["source"]["component"] == "selfheal-remediator"
    assert body["reportingInstance"] == "pod-1_uid"
    # What was done is reported also by a process that has just lost the Lease.
    assert fenced is False
    assert counts == {"written": 1}


def test_an_event_bears_the_time_when_it_was_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that when its turn came: cordons and evictions go first."""
    api = Api()
    later = threading.Event()
    monkeypatch.setattr(api, "settle", lambda _: later.wait(30))
    runtime = FakeRuntime()
    writer = EventWriter(api, "pod-1_uid", lambda _: None, runtime=runtime)
    writer.start()
    runtime.now = lambda: 1767225600.0
    writer.record(CORDONED)
    runtime.now = lambda: 1767225660.0
    later.set()
    writer.close(30.0)
    [(_, body, _)] = api.written
    assert body["firstTimestamp"] == body["lastTimestamp"] == "2026-01-01T00:00:00Z"


def test_an_event_about_an_object_is_in_its_namespace() -> None:
    event = ObjectEvent("apps/v1", "Deployment", "shop", "web", "u", "HealingTriggered", "m", False)
    api, _ = recorded(event)
    [(path, body, _)] = api.written
    assert path == "/api/v1/namespaces/shop/events"
    assert body["involvedObject"]["namespace"] == body["metadata"]["namespace"] == "shop"
    assert body["type"] == "Normal"


def test_the_same_is_not_reported_twice_and_something_else_is() -> None:
    other = NodeEvent("n1", "uid-1", "Cordoned", "cordoned: another reason", True)
    api, _ = recorded(CORDONED, CORDONED, other, CORDONED)
    assert [body["message"] for _, body, _ in api.written] == [CORDONED.message, other.message]


def test_a_long_message_is_cut_below_what_the_api_takes() -> None:
    api, _ = recorded(NodeEvent("n1", "u", "DrainBlocked", "x" * 5000, True))
    [(_, body, _)] = api.written
    assert len(body["message"]) == MAX_MESSAGE < 1024


@pytest.mark.parametrize(
    ("failing", "counted"),
    [
        (ApiFailure(0, "Reset", "no answer"), "failed"),
        (Answer(403, b'{"kind":"Status"}'), "refused"),
    ],
)
def test_an_event_that_cannot_be_written_is_counted_and_the_next_one_tried(
    failing: Answer | ApiFailure, counted: str
) -> None:
    api = Api()
    api.failing = failing
    other = NodeEvent("n2", "u", "Cordoned", "m", True)
    _, counts = recorded(CORDONED, other, api=api)
    assert counts == {counted: 2}


def test_too_many_are_dropped_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfheal_remediator.kube.events.QUEUE", 3)
    counts = Counter[str]()
    writer = EventWriter(Api(), "me", lambda result: counts.update([result]))
    for number in range(5):  # nothing writes yet
        writer.record(NodeEvent(f"n{number}", "u", "Cordoned", "m", True))
    assert counts == {"dropped": 2}


def test_a_long_name_leaves_room_for_what_makes_the_events_name_unique() -> None:
    """The API server takes no name of more than 253 characters."""
    names = ["n" * 253, "n" * 235 + ".-" + "n" * 16, "n"]
    api, _ = recorded(*[NodeEvent(name, "u", "Cordoned", "why", True) for name in names])
    for (_, body, _), name in zip(api.written, names, strict=True):
        made = body["metadata"]["name"]
        assert len(made) <= 253
        assert all(re.fullmatch("[a-z0-9]([-a-z0-9]*[a-z0-9])?", part) for part in made.split("."))
        assert body["involvedObject"]["name"] == name


def test_an_event_that_was_dropped_was_not_reported() -> None:
    api, counts = Api(), Counter[str]()
    writer = EventWriter(api, "pod-1_uid", lambda result: counts.update([result]))
    for number in range(QUEUE):
        writer.record(NodeEvent(f"n{number}", "u", "Cordoned", "why", True))
    writer.record(CORDONED)
    assert counts["dropped"] == 1
    writer.start()
    until("there is room again", lambda: api.written)
    writer.record(CORDONED)
    writer.close(60)
    assert counts == {"dropped": 1, "written": QUEUE + 1}
    assert [body["message"] for _, body, _ in api.written].count(CORDONED.message) == 1


def test_what_was_reported_is_remembered_in_bounded_memory_and_time() -> None:
    reported, events = Reported(), [replace(CORDONED, node=f"n{n}") for n in range(3 * MOST_SAID)]
    for event in events:
        reported.add(event, 0.0)
    assert len(reported) == MOST_SAID
    assert [event for event in events if reported.has(event, 299.0)] == events[-MOST_SAID:]
    assert not any(reported.has(event, 301.0) for event in events)
    reported.add(CORDONED, 301.0)
    assert len(reported) == 1
    assert reported.has(CORDONED, 301.0)


def test_where_many_wait_an_event_waits_for_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    settled: list[float] = []
    monkeypatch.setattr(api, "settle", settled.append)
    recorded(
        *[NodeEvent(f"n{n}", "u", "Cordoned", "why", True) for n in range(BACKLOG + 50)], api=api
    )
    assert len(settled) in (BACKLOG - 1, BACKLOG)  # the end of all may wait behind them, too


def test_the_last_events_are_kept_with_what_became_of_them() -> None:
    api = Api()
    writer = EventWriter(api, "me", lambda _: None)
    events = [replace(CORDONED, message=str(number)) for number in range(MOST_RECENT + 1)]
    for event in events:
        writer.record(event)
    api.failing = Answer(403, b'{"kind":"Status"}')
    writer.start()
    writer.close(30.0)
    assert [item.event.message for item in writer.recent] == [item.message for item in events[1:]]
    assert all(item.problem.startswith("refused: ") for item in writer.recent)
    assert writer.recent[0].event.kind == "Node"
