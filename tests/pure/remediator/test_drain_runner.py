"""Of many drains only those are evaluated that changed or whose time has come."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from selfheal_remediator.config import Drain
from selfheal_remediator.drain.budget_watch import BUDGETS_KEPT
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.filters import Surroundings
from selfheal_remediator.drain.preflight import Departure
from selfheal_remediator.drain.runner import Draining
from selfheal_remediator.drain.running import Callbacks, RunningDrain
from selfheal_remediator.drain.turn import LOOK_AGAIN
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.kube.responses import Answer
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from selfheal_remediator.threads.pool import Workers
from tests.pure.remediator import builders
from tests.pure.remediator.builders import NOW, pod
from tests.pure.remediator.running import until

COUNT = 50
#: What a server that is not there says, and one whose budget refuses.
REFUSALS: dict[int, dict[str, Any]] = {
    503: {"kind": "Status", "code": 503, "message": "no answer"},
    429: {
        "kind": "Status",
        "code": 429,
        "details": {"causes": [{"reason": "DisruptionBudget", "message": "needs 1 and has 1"}]},
    },
}


class Evaluations:
    """Fifty drains, of one pod each, and which of them are evaluated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = NOW
        self.seen: list[str] = []
        self.posted: list[Any] = []
        self.said: list[tuple[str, str, str]] = []
        self.not_ours: list[Node] = []
        nothing = Callbacks(done=lambda _: None, no_room=lambda *_: None, nodes=list,
                            say=self._reported, evicted=lambda _: None,
                            not_ours=self.not_ours.append, returned=lambda _: None,
                            of_object=lambda _: None)  # fmt: skip
        workers = Workers(1)
        monkeypatch.setattr(workers, "submit", lambda job, *_: self.posted.append(job))
        self.api = Api()
        self.made = Draining(
            self.api,  # type: ignore[arg-type]
            builders.config(),
            workers,
            lambda job: job(),
            "",
            nothing,
            lambda: self.now,
        )
        step = NodeDrain.step

        def counted(drain: NodeDrain, *args: Any, **options: Any) -> Any:
            self.seen.append(drain.node)
            return step(drain, *args, **options)

        monkeypatch.setattr(NodeDrain, "step", counted)
        for number in range(COUNT):
            name = f"n{number}"
            drain = NodeDrain(name, name, NOW, NOW + 600, Surroundings(Drain()), synced=True)
            drain.pod_changed(None, pod(f"p{number}", node=name))
            drain.begin_wave(0)
            self.made.running[name] = RunningDrain(drain)

    def _reported(self, node: str, uid: str, reason: str, message: str, warning: bool) -> None:
        self.said.append((node, reason, message))

    def keep_only(self, name: str) -> RunningDrain:
        """The other drains end; returns this one."""
        for other in [item for item in self.made.running if item != name]:
            self.made.end(other)
        return self.made.running[name]

    def advance(self, seconds: float = 0.0, *, stopped: bool = False) -> list[str]:
        """Which are evaluated, that much later."""
        self.now += seconds
        self.seen.clear()
        self.wake = self.made.advance(self.now, stopped=stopped)
        return list(self.seen)


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> Evaluations:
    return Evaluations(monkeypatch)


def test_news_of_one_drain_are_no_reason_to_evaluate_the_others(evaluations: Evaluations) -> None:
    assert len(evaluations.advance()) == COUNT
    assert len(evaluations.posted) == COUNT
    assert evaluations.advance() == []
    evaluations.posted[7]()
    assert evaluations.advance() == ["n7"]
    assert evaluations.wake is not None
    assert evaluations.advance() == []
    evaluations.made.reopen("n9")
    assert evaluations.advance() == ["n9"]


def test_a_drain_is_evaluated_when_it_is_due_and_at_the_fallback_interval(
    evaluations: Evaluations,
) -> None:
    evaluations.advance()
    assert evaluations.wake == NOW + LOOK_AGAIN
    evaluations.api.answer = 503
    evaluations.posted[7]()
    assert evaluations.advance() == ["n7"]
    assert evaluations.wake == NOW + 0.5
    assert evaluations.advance(0.5) == ["n7"]  # to ask again
    assert len(evaluations.posted) == COUNT + 1
    assert len(evaluations.advance(LOOK_AGAIN)) == COUNT


def test_a_pause_and_another_configuration_concern_all(evaluations: Evaluations) -> None:
    evaluations.advance()
    assert len(evaluations.advance(stopped=True)) == COUNT
    assert evaluations.advance(stopped=True) == []
    assert len(evaluations.advance(stopped=False)) == COUNT
    evaluations.made.config = builders.config()
    assert len(evaluations.advance()) == COUNT


class Source:
    """One list, and a watch in which nothing happens until it is closed."""

    def __init__(self, *items: dict[str, Any]) -> None:
        self.items, self.closed = list(items), threading.Event()

    def pages(self, **_: Any) -> Any:
        return iter([(list(self.items), "1")])

    def watch(self, version: str, stop: threading.Event) -> Any:
        self.closed.wait(60)
        yield from ()

    def close(self) -> None:
        self.closed.set()


class Api:
    """Counts the evictions that it is asked for, and which are dry runs; knows one node."""

    def __init__(self, raw: dict[str, Any] | int = 404) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.raw = raw
        self.answer = 201
        self.budgets_closed = threading.Event()
        self.daemon_sets_listed = 0
        self.while_listing: Callable[[], None] | None = None

    def node(self, name: str) -> dict[str, Any]:
        if isinstance(self.raw, int):
            raise ApiFailure(self.raw, "", "no")
        return self.raw

    def evict(
        self, namespace: str, name: str, uid: str, grace: int | None, *, dry_run: bool
    ) -> Any:
        self.asked.append((name, dry_run))
        body = b"{}" if self.answer < 400 else json.dumps(REFUSALS[self.answer]).encode()
        return Answer(self.answer, body)

    def budgets(self) -> Source:
        meta = {"namespace": "default", "name": "b", "uid": "b", "resourceVersion": "1"}
        source = Source({"metadata": meta, "spec": {"selector": {}}})
        self.budgets_closed = source.closed
        return source

    def daemon_sets(self) -> Source:
        self.daemon_sets_listed += 1
        if self.while_listing is not None:
            self.while_listing()
        return Source({"metadata": {"namespace": "default", "name": "agent", "uid": "u"}})


def test_what_waits_for_its_turn_is_cancelled_by_a_pause(evaluations: Evaluations) -> None:
    api = evaluations.api
    evaluations.advance()
    evaluations.posted[0]()
    evaluations.advance(stopped=True)
    for job in evaluations.posted[1:]:
        job()
    assert [name for name, _ in api.asked] == ["p0"]
    evaluations.posted.clear()
    evaluations.advance(stopped=False)
    for job in evaluations.posted:
        job()
    assert sorted(name for name, _ in api.asked) == sorted(f"p{n}" for n in range(COUNT))


def test_while_its_node_recovers_nothing_more_leaves_it(evaluations: Evaluations) -> None:
    api = evaluations.api
    evaluations.advance()
    evaluations.made.pause("n7", "Fault is good, stabilization window")
    for job in evaluations.posted:
        job()  # also what was ordered before, and waits for its turn
    assert len(api.asked) == COUNT - 1
    assert evaluations.advance() == [f"n{n}" for n in range(COUNT)]  # their answers; and n7's rest
    assert evaluations.posted[COUNT:] == []
    evaluations.made.pause("n7", "Fault is good, stabilization window")
    assert evaluations.advance() == []
    assert evaluations.made.resume("n7") == 1
    assert evaluations.advance() == ["n7"]
    evaluations.posted[COUNT]()
    assert api.asked[-1] == ("p7", False)
    text = "no more pods are evicted for now: Fault is good, stabilization window"
    assert evaluations.said == [("n7", "DrainPaused", text)]


def test_the_deadline_waits_while_its_node_recovers(evaluations: Evaluations) -> None:
    run, other = evaluations.made.running["n7"], evaluations.made.running["n8"]
    evaluations.made.pause("n7", "good")
    evaluations.advance(500)
    assert evaluations.made.resume("n7") == 500
    assert evaluations.made.resume("n7") == 0
    assert run.drain.deadline == other.drain.deadline + 500


def test_of_a_drain_that_ended_nothing_more_is_sent(evaluations: Evaluations) -> None:
    api = evaluations.api
    evaluations.advance()
    evaluations.made.running["n7"].stop.set()
    for job in evaluations.posted:
        job()
    assert len(api.asked) == COUNT - 1
    assert ("p7", False) not in api.asked


def test_what_was_requested_in_dry_run_stays_a_dry_run(evaluations: Evaluations) -> None:
    api = evaluations.api
    evaluations.made.config = builders.config(mode="dryRun")
    evaluations.advance()
    evaluations.made.config = builders.config()
    evaluations.posted[0]()
    assert api.asked == [("p0", True)]


def test_a_dry_run_without_anything_to_try_waits_for_its_end(evaluations: Evaluations) -> None:
    """Its wave never begins: nothing is to be evaluated for that again and again."""
    drain = evaluations.keep_only("n7").drain
    drain.wave = -1
    drain.pod_changed(pod("p7", node="n7"), pod("p7", node="n7", deletion=NOW))
    evaluations.made.config = builders.config(mode="dryRun")
    evaluations.advance()
    assert evaluations.wake is not None
    assert evaluations.wake > NOW


RAW = {"metadata": {"name": "n7", "uid": "n7", "resourceVersion": "9"}, "spec": {}, "status": {}}
OURS = State(Phase.DRAINING, builders.OWNER, "Fault", "True").to_json()
DRAINING = {**RAW, "metadata": {**RAW["metadata"], "annotations": {STATE_KEY: OURS}},
            "spec": {"unschedulable": True}}  # fmt: skip


@pytest.mark.parametrize("raw", [403, 404, 503, RAW], ids=["403", "404", "503", "not ours"])
def test_a_node_that_may_not_be_drained_is_read_again_ever_later(
    evaluations: Evaluations, raw: dict[str, Any] | int
) -> None:
    """And nothing leaves it. What the loop does not know yet is given to it."""
    run, api = evaluations.keep_only("n7"), evaluations.api
    api.raw = raw
    run.drain.wave = -1
    delays = []
    for _ in range(8):
        evaluations.advance()
        (check,) = evaluations.posted
        evaluations.posted.clear()
        check()
        evaluations.advance()
        assert evaluations.posted == []  # not at once
        assert evaluations.wake is not None
        delays.append(run.check.at - evaluations.now)
        evaluations.now = run.check.at
    assert delays == [0.5, 1, 2, 4, 8, 15, 15, 15]
    assert [node.name for node in evaluations.not_ours] == (["n7"] * 8 if raw is RAW else [])
    api.raw = DRAINING
    for _ in range(2):
        evaluations.advance()
        evaluations.posted.pop()()
    assert api.asked == [("p7", False)]


def test_after_a_vain_evaluation_the_next_is_not_missed(evaluations: Evaluations) -> None:
    evaluations.api.raw = 503
    evaluations.keep_only("n7").drain.wave = -1
    evaluations.advance()
    evaluations.posted.pop()()
    evaluations.advance()
    assert evaluations.wake == NOW + 0.5
    assert evaluations.advance(0.5) == ["n7"]
    assert len(evaluations.posted) == 1


def test_an_owner_whose_pods_are_left_is_reported_once(evaluations: Evaluations) -> None:
    drain = evaluations.made.running["n7"].drain
    drain.pod_changed(pod("p7", node="n7"), None)
    for number in range(4):
        item = pod(f"again-{number}", node="n7")
        drain.pod_changed(None, item)
        if number < 3:
            drain.pod_changed(item, None)
    evaluations.advance()
    evaluations.advance(LOOK_AGAIN)
    text = "not evicted: scheduled to the cordoned node repeatedly by default/ReplicaSet/rs"
    assert ("n7", "PodsLeftOnNode", text) in evaluations.said
    assert len(evaluations.said) == 1


def test_when_budgets_are_not_watched_any_more_no_drain_believes_them(
    evaluations: Evaluations,
) -> None:
    """The watch begins with the first refusal, and ends when no drain needs it any more."""
    run = evaluations.keep_only("n7")
    evaluations.advance()
    evaluations.api.answer = 429
    evaluations.posted.pop()()
    until("they are known", lambda: list(run.drain.budgets.known) == ["b"])
    late = NodeDrain("late", "late", NOW, NOW + 600, Surroundings(Drain()))
    evaluations.made.budgets.begin(RunningDrain(late))
    assert list(late.budgets.known) == ["b"]
    run.drain.pod_changed(pod("p7", node="n7"), None)
    run.drain.watch_on()
    evaluations.advance(1)
    evaluations.advance(BUDGETS_KEPT)
    assert list(run.drain.budgets.known) == ["b"]
    evaluations.advance(1)
    assert run.drain.budgets.known == {}
    assert evaluations.api.budgets_closed.wait(60)


@pytest.mark.parametrize("forgotten", [False, True])
def test_what_was_read_in_one_term_is_not_believed_in_the_next(
    evaluations: Evaluations, forgotten: bool
) -> None:
    preflight, api = evaluations.made.preflight, evaluations.api
    agent = pod("a", owner_kind="DaemonSet", owner_name="agent", owner_uid="u")
    departure = Departure("n", "n", (), False, threading.Event())
    known = frozenset({("default", "agent", "u")})
    assert preflight.surroundings(departure, [agent]).daemon_sets == known
    rooms = preflight.rooms
    if forgotten:
        evaluations.made.end_all()
    assert preflight.surroundings(departure, [agent]).daemon_sets == known
    assert api.daemon_sets_listed == 1 + forgotten
    assert (preflight.rooms is rooms) is not forgotten


def test_a_list_that_a_term_began_is_not_believed_in_the_next(evaluations: Evaluations) -> None:
    """It is answered only when the term is over."""
    preflight, api = evaluations.made.preflight, evaluations.api
    agent = pod("a", owner_kind="DaemonSet", owner_name="agent", owner_uid="u")
    departure = Departure("n", "n", (), False, threading.Event())
    api.while_listing = evaluations.made.end_all
    preflight.surroundings(departure, [agent])
    api.while_listing = None
    preflight.surroundings(departure, [agent])
    assert api.daemon_sets_listed == 2
