"""Of many drains only those are looked at that changed or whose time has come."""

from __future__ import annotations

from typing import Any

import pytest

from selfheal_remediator.config import Drain
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.filters import Surroundings
from selfheal_remediator.drain.runner import LOOK_AGAIN, Callbacks, Draining, Running
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.kube.responses import Answer, EvictionResult, Outcome
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from selfheal_remediator.threads.pool import Workers
from tests.pure.remediator import builders
from tests.pure.remediator.builders import NOW, pod
from tests.pure.remediator.test_drain_engine import budget

COUNT = 50


class Looks:
    """Fifty drains, of one pod each, and which of them are looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = NOW
        self.seen: list[str] = []
        self.posted: list[Any] = []
        self.said: list[tuple[str, str, str]] = []
        self.not_ours: list[Node] = []
        nothing = Callbacks(*[lambda *_: None] * 2, nodes=list, say=self._reported,
                            evicted=lambda _: None, not_ours=self.not_ours.append,
                            returned=lambda _: None)  # fmt: skip
        workers = Workers(1)
        monkeypatch.setattr(workers, "submit", lambda job, *_: self.posted.append(job))
        self.made = Draining(
            None, builders.config(), workers, lambda job: job(), "", nothing, lambda: self.now
        )  # type: ignore[arg-type]
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
            self.made.running[name] = Running(drain, None)  # type: ignore[arg-type]

    def _reported(self, node: str, uid: str, reason: str, message: str, warning: bool) -> None:
        self.said.append((node, reason, message))

    def advance(self, seconds: float = 0.0, *, stopped: bool = False) -> list[str]:
        """Which are looked at, that much later."""
        self.now += seconds
        self.seen.clear()
        self.wake = self.made.advance(self.now, stopped=stopped)
        return list(self.seen)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


def test_news_of_one_drain_are_no_reason_to_evaluate_the_others(looks: Looks) -> None:
    assert len(looks.advance()) == COUNT
    assert len(looks.posted) == COUNT
    assert looks.advance() == []
    run = looks.made.running["n7"]
    looks.made._answered(run, pod("p7"), EvictionResult(Outcome.ACCEPTED))
    assert looks.advance() == ["n7"]
    assert looks.wake is not None
    assert looks.advance() == []
    looks.made.reopen("n9")
    assert looks.advance() == ["n9"]


def test_a_drain_is_evaluated_when_it_is_due_and_at_the_fallback_interval(looks: Looks) -> None:
    looks.advance()
    assert looks.wake == NOW + LOOK_AGAIN
    run = looks.made.running["n7"]
    looks.made._answered(run, pod("p7"), EvictionResult(Outcome.UNAVAILABLE, "no answer", None))
    assert looks.advance() == ["n7"]
    assert looks.wake == NOW + 0.5
    assert looks.advance(0.5) == ["n7"]  # to ask again
    assert len(looks.posted) == COUNT + 1
    assert len(looks.advance(LOOK_AGAIN)) == COUNT


def test_a_pause_and_another_configuration_concern_all(looks: Looks) -> None:
    looks.advance()
    assert len(looks.advance(stopped=True)) == COUNT
    assert looks.advance(stopped=True) == []
    assert len(looks.advance(stopped=False)) == COUNT
    looks.made.config = builders.config()
    assert len(looks.advance()) == COUNT


class Api:
    """Counts the evictions that it is asked for, and what they rehearse; knows one node."""

    def __init__(self, raw: dict[str, Any] | int = 404) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.raw = raw

    def node(self, name: str) -> dict[str, Any]:
        if isinstance(self.raw, int):
            raise ApiFailure(self.raw, "", "no")
        return self.raw

    def evict(
        self, namespace: str, name: str, uid: str, grace: int | None, *, dry_run: bool
    ) -> Any:
        self.asked.append((name, dry_run))
        return Answer(201, b"{}")


def test_what_waits_for_its_turn_is_cancelled_by_a_pause(looks: Looks) -> None:
    looks.made._api = api = Api()  # type: ignore[assignment]
    looks.advance()
    looks.posted[0]()
    looks.advance(stopped=True)
    for job in looks.posted[1:]:
        job()
    assert [name for name, _ in api.asked] == ["p0"]
    looks.posted.clear()
    looks.advance(stopped=False)
    for job in looks.posted:
        job()
    assert sorted(name for name, _ in api.asked) == sorted(f"p{n}" for n in range(COUNT))


def test_while_its_node_recovers_nothing_more_leaves_it(looks: Looks) -> None:
    looks.made._api = api = Api()  # type: ignore[assignment]
    looks.advance()
    looks.made.rest("n7", "Fault is good, stabilization window")
    for job in looks.posted:
        job()  # also what was ordered before, and waits for its turn
    assert len(api.asked) == COUNT - 1
    assert looks.advance() == [f"n{n}" for n in range(COUNT)]  # their answers; and n7's rest
    assert looks.posted[COUNT:] == []
    looks.made.rest("n7", "Fault is good, stabilization window")
    assert looks.advance() == []
    assert looks.made.go_on("n7") == 1
    assert looks.advance() == ["n7"]
    looks.posted[COUNT]()
    assert api.asked[-1] == ("p7", False)
    text = "no more pods are evicted for now: Fault is good, stabilization window"
    assert looks.said == [("n7", "DrainPaused", text)]


def test_the_deadline_waits_while_its_node_recovers(looks: Looks) -> None:
    run, other = looks.made.running["n7"], looks.made.running["n8"]
    looks.made.rest("n7", "good")
    looks.advance(500)
    assert looks.made.go_on("n7") == 500
    assert looks.made.go_on("n7") == 0
    assert run.drain.deadline == other.drain.deadline + 500


def test_of_a_drain_that_ended_nothing_more_is_sent(looks: Looks) -> None:
    looks.made._api = api = Api()  # type: ignore[assignment]
    looks.advance()
    looks.made.running["n7"].stop.set()
    for job in looks.posted:
        job()
    assert len(api.asked) == COUNT - 1
    assert ("p7", False) not in api.asked


def test_what_was_requested_in_dry_run_stays_a_dry_run(looks: Looks) -> None:
    looks.made._api = api = Api()  # type: ignore[assignment]
    looks.made.config = builders.config(mode="dryRun")
    looks.advance()
    looks.made.config = builders.config()
    looks.posted[0]()
    assert api.asked == [("p0", True)]


class Budgets(Api):
    """Where no budget is ever told of."""

    def budgets(self) -> Any:
        return self

    def pages(self) -> Any:
        return iter(())

    def watch(self, *_: Any) -> Any:
        return iter(())

    def close(self) -> None: ...


RAW = {"metadata": {"name": "n7", "uid": "n7", "resourceVersion": "9"}, "spec": {}, "status": {}}
OURS = State(Phase.DRAINING, builders.OWNER, "Fault", "True").to_json()
DRAINING = {**RAW, "metadata": {**RAW["metadata"], "annotations": {STATE_KEY: OURS}},
            "spec": {"unschedulable": True}}  # fmt: skip


@pytest.mark.parametrize("raw", [403, 404, 503, RAW], ids=["403", "404", "503", "not ours"])
def test_a_node_that_may_not_be_drained_is_read_again_ever_later(
    looks: Looks, raw: dict[str, Any] | int
) -> None:
    """And nothing leaves it. What the loop does not know yet, it is told."""
    run = looks.made.running["n7"]
    looks.made.running = {"n7": run}
    looks.made._api = api = Api(raw)  # type: ignore[assignment]
    run.drain.wave = -1
    delays = []
    for _ in range(8):
        looks.advance()
        (check,) = looks.posted
        looks.posted.clear()
        check()
        looks.advance()
        assert looks.posted == []  # not at once
        assert looks.wake is not None
        delays.append(run.check_at - looks.now)
        looks.now = run.check_at
    assert delays == [0.5, 1, 2, 4, 8, 15, 15, 15]
    assert [node.name for node in looks.not_ours] == (["n7"] * 8 if raw is RAW else [])
    api.raw = DRAINING
    for _ in range(2):
        looks.advance()
        looks.posted.pop()()
    assert api.asked == [("p7", False)]


def test_after_a_vain_evaluation_the_next_is_not_missed(looks: Looks) -> None:
    looks.made.running = {"n7": looks.made.running["n7"]}
    looks.made._api = Api(503)  # type: ignore[assignment]
    looks.made.running["n7"].drain.wave = -1
    looks.advance()
    looks.posted.pop()()
    looks.advance()
    assert looks.wake == NOW + 0.5
    assert looks.advance(0.5) == ["n7"]
    assert len(looks.posted) == 1


def test_an_owner_whose_pods_are_left_is_reported_once(looks: Looks) -> None:
    drain = looks.made.running["n7"].drain
    drain.pod_changed(pod("p7", node="n7"), None)
    for number in range(4):
        item = pod(f"again-{number}", node="n7")
        drain.pod_changed(None, item)
        if number < 3:
            drain.pod_changed(item, None)
    looks.advance()
    looks.advance(LOOK_AGAIN)
    text = "not evicted: scheduled to the cordoned node repeatedly by default/ReplicaSet/rs"
    assert ("n7", "PodsLeftOnNode", text) in looks.said
    assert len(looks.said) == 1


def test_when_budgets_are_not_watched_any_more_no_drain_believes_them(looks: Looks) -> None:
    looks.made._api = Budgets()  # type: ignore[assignment]
    drain = looks.made.running["n7"].drain
    looks.made._watch_budgets()
    stop = looks.made._budget_stop
    assert stop is not None
    found = budget(1)
    looks.made._budget_changed(Change(found.id, None, found), stop)
    assert drain.budgets == {found.uid: found}
    looks.made._stop_budgets()
    assert drain.budgets == {}


def test_what_was_read_in_one_term_is_not_believed_in_the_next(looks: Looks) -> None:
    looks.made.running.clear()
    looks.made._daemon_sets = (0.0, frozenset({("d", "agent", "u")}))
    rooms = looks.made._rooms
    looks.made.end_all()
    assert looks.made._daemon_sets is None
    assert looks.made._rooms is not rooms
