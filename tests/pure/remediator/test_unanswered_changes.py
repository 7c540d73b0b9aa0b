"""A change of a node whose answer is lost: nobody waits for it, and it counts until it is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.node.actions import Action, Kind
from selfheal_remediator.node.unanswered import (
    FIRST_RETRY,
    LONGEST_RETRY,
    REPORTED_AFTER,
    Doubts,
    Unanswered,
    may_be_made,
)
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import NODES, PODS, node, pod, running, until, until_later
from tests.support.samples import sample

FIRST, SECOND, OTHER = (f"{NODES}/{name}" for name in ("first", "second", "other"))
CORDON = Action(Kind.CORDON, "n", "uid-n", None, "", "")
#: How a read fails for long: not allowed, nothing that can be read, no answer, an error.
LASTING = ["403", "not json", "refused", "500"]


def _config(cordoned: Any, **api: Any) -> Config:
    return Config.model_validate(
        {
            "rules": [{"condition": "Fault", "for": 0, "action": "cordon"}],
            "limits": {"maxUnavailable": cordoned, "minSchedulable": 0},
            "signal": {"enabled": False},
            "policies": {"enabled": False},
            "api": api,
        }
    )


# -- what is remembered ----------------------------------------------------------------------


def _cause(version: int = 7) -> Unanswered:
    return Unanswered(version, ApiFailure(0, "ReadTimeout", "x"))


@pytest.mark.parametrize(
    ("status", "may"),
    [(0, True), (500, True), (503, True), (504, True), (403, False), (422, False), (429, False)],
)
def test_only_what_was_refused_is_surely_not_made(status: int, may: bool) -> None:
    assert may_be_made(ApiFailure(status, "", "")) is may


def test_a_node_that_cannot_be_read_is_read_ever_later_and_reported_once() -> None:
    doubts, now, waits, reports = Doubts(), 0.0, [], 0
    doubt = doubts.begin(CORDON, _cause())
    for _ in range(20):
        assert doubts.due(now) == ()  # it is being read
        reports += doubts.not_read(doubt, now)
        assert doubts.wake is not None
        waits.append(doubts.wake - now)
        assert doubts.due(doubts.wake - 0.1) == ()
        now = doubts.wake
        assert doubts.due(now) == (doubt,)
        assert doubts.wake is None
    assert (waits[0], waits[-1], reports) == (FIRST_RETRY, LONGEST_RETRY, 1)
    assert waits == sorted(waits)
    assert waits.index(LONGEST_RETRY) > REPORTED_AFTER


@pytest.mark.parametrize(
    ("version", "restored", "known"),
    [(6, False, False), (7, False, False), (8, False, True), (3, True, True)],
)
def test_a_later_version_shows_what_became_of_it(version: int, restored: bool, known: bool) -> None:
    doubts = Doubts()
    doubt = doubts.begin(CORDON, _cause())
    assert doubts.shown("uid-other", 99) is None
    assert doubts.shown("uid-n", version, restored=restored) == (doubt if known else None)
    assert doubts.end(doubt) is not known


def test_a_read_that_ends_late_ends_no_other_doubt() -> None:
    doubts = Doubts()
    old = doubts.begin(CORDON, _cause())
    doubts.clear()
    new = doubts.begin(CORDON, _cause(9))
    assert not doubts.end(old)
    for _ in range(REPORTED_AFTER):
        assert not doubts.not_read(old, 0.0)
    assert doubts.due(1e9) == ()
    assert doubts.end(new)


# -- the whole remediator --------------------------------------------------------------------


class Story:
    """The change of node `first` goes wrong, and it cannot be read while `ill`."""

    def __init__(self) -> None:
        self.change, self.read, self.unhealthy, self.reads = "refused", "403", True, 0
        self.api = FakeApi(self.disturb)
        self.said: list[tuple[str, str]] = []
        for name in ("first", "second", "other"):
            self.api.put(f"{NODES}/{name}", node(name, "False"))

    def disturb(self, verb: str, path: str) -> str:
        if not path.startswith(FIRST) or not self.unhealthy:
            return ""
        self.reads += verb == "GET"
        return self.change if verb == "PATCH" else self.read

    def hear(self, remediator: Remediator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            remediator.parts.events,
            "record",
            lambda event: self.said.append((event.node, event.reason)),
        )

    def cordoned(self, path: str) -> bool:
        return bool(self.api.get(path)["spec"].get("unschedulable"))

    def goes_bad(self, path: str) -> None:
        self.api.put(path, node(path.rpartition("/")[2], "True"))


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    monkeypatch.setattr("selfheal_remediator.node.unanswered.FIRST_RETRY", 0.01)
    monkeypatch.setattr("selfheal_remediator.node.unanswered.LONGEST_RETRY", 0.1)
    monkeypatch.setattr("selfheal_remediator.kube.transport.GET_ATTEMPTS", 1)
    made = Story()
    yield made
    made.api.close()


@pytest.mark.parametrize("read", LASTING)
def test_while_a_node_cannot_be_read_others_are_changed(
    story: Story, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    story.read = read
    more = [FIRST, *(f"{FIRST}-{number}" for number in range(5))]
    with running(story.api, _config("100%", maxInFlight=4)) as remediator:
        story.hear(remediator, monkeypatch)
        until("it leads", lambda: remediator.leader.leading and remediator.synced)
        for path in more:
            story.goes_bad(path)
        until("they are read in vain", lambda: story.reads >= 4)
        story.goes_bad(SECOND)
        until("the other is cordoned", lambda: story.cordoned(SECOND))
        until("it is said", lambda: ("first", "OutcomeUnknown") in story.said)
        assert not story.cordoned(FIRST)
        story.unhealthy = False
        until("they are cordoned", lambda: all(story.cordoned(path) for path in more))
    assert story.said.count(("first", "OutcomeUnknown")) == 1


def test_a_change_that_may_have_been_made_counts(story: Story) -> None:
    with running(story.api, _config(1)) as remediator:
        until("it leads", lambda: remediator.leader.leading and remediator.synced)
        story.goes_bad(FIRST)
        until("it is read in vain", lambda: story.reads >= 2)
        story.goes_bad(SECOND)

        def limited() -> float:
            name = "selfheal_remediator_limited_nodes"
            return sample(remediator.metrics.registry, name, limit="maxUnavailable")

        until("it is limited", lambda: limited() == 1)
        reads = story.reads
        until("it is read on", lambda: story.reads >= reads + 3)
        assert not story.cordoned(SECOND)
        story.unhealthy = False
        until("one is cordoned", lambda: story.cordoned(FIRST) or story.cordoned(SECOND))
        until("its place is taken", lambda: limited() == 1)
        assert story.cordoned(FIRST) is not story.cordoned(SECOND)


@pytest.mark.parametrize("change", ["lost", "503", "not json", "wrong types", "truncated"])
def test_what_the_watch_shows_needs_no_read(story: Story, change: str) -> None:
    story.change = change
    with running(story.api, _config("100%")) as remediator:
        until("it leads", lambda: remediator.leader.leading and remediator.synced)
        story.goes_bad(FIRST)
        if change == "503":  # not made: nothing is seen of it
            until("it is read in vain", lambda: story.reads >= 1)
            story.change = ""
            story.goes_bad(FIRST)  # another heartbeat
        until("it is cordoned", lambda: story.cordoned(FIRST))
        entry = remediator.planner.entry_named("first")
        assert entry is not None
        until("it is known", lambda: entry.pending is None and entry.node.unschedulable)
    assert len([path for _, path, _ in story.api.did if path == FIRST]) == 1


def test_a_node_that_is_gone_is_not_asked_for(story: Story) -> None:
    with running(story.api, _config("100%")) as remediator:
        until("it leads", lambda: remediator.leader.leading and remediator.synced)
        story.goes_bad(FIRST)
        until("it is read in vain", lambda: story.reads >= 2)
        story.api.put(FIRST, None)
        until("it is gone", lambda: remediator.planner.entry_named("first") is None)
        done: list[float | None] = []
        remediator.post(lambda: done.append(remediator.parts.writer.wake))
        until("it is forgotten", lambda: done == [None])


def test_what_cannot_be_read_at_first_is_only_asked_for_again(story: Story) -> None:
    """Nothing was sent: the node changed since, and cannot be read."""
    story.change, story.read = "", "not json"
    raced: list[bool] = []

    def disturb(verb: str, path: str) -> str:
        if (verb, path) == ("PATCH", FIRST) and not raced:
            raced.append(True)
            with story.api.changing(FIRST) as raw:
                raw["metadata"]["labels"] = {"a": "b"}
        return story.disturb(verb, path)

    story.api.disturb = disturb
    with running(story.api, _config("100%")) as remediator:
        until("it leads", lambda: remediator.leader.leading and remediator.synced)
        story.goes_bad(FIRST)
        until("it is cordoned", lambda: story.cordoned(FIRST))


def test_a_drain_whose_end_cannot_be_written_is_not_begun_in_a_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its pods fit nowhere, and the node may not be changed any more."""
    refused: list[float] = []
    lists: list[float] = []

    class Listing(FakeApi):
        def _read(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
            if path == "/api/v1/pods":
                lists.append(len(refused))
            return super()._read(path, query)

    def disturb(verb: str, path: str) -> str:
        if (verb, path) != ("PATCH", FIRST) or "unschedulable" not in api.objects[path]["spec"]:
            return ""
        refused.append(0.0)
        return "403"

    api = Listing(disturb)
    api.put(FIRST, node("first", "True"))
    api.put(OTHER, node("other", "False"))
    api.put(f"{PODS}/p", pod("p", "first"))
    rules = [{"condition": "Fault", "for": 0, "action": "drain"}]
    config = _config("100%").model_copy(
        update={
            "rules": Config.model_validate({"rules": rules}).rules,
            "drain": Config.model_validate({"drain": {"autoscaler": "absent"}}).drain,
        }
    )
    with running(api, config) as remediator:
        until_later(remediator, "it is refused", lambda: len(refused) >= 5)
        assert len(lists) <= 6 * len(refused) + 12, lists
    api.close()
