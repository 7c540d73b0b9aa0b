"""An eviction that is accepted but deletes nothing is asked for again, and named."""

from __future__ import annotations

import pytest

from selfheal_remediator.config import Drain
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.drain.filters import Surroundings
from selfheal_remediator.kube.deletion_check import (
    CHECK_AFTER,
    CHECK_AGAIN,
    LONGEST_RETRY,
    NOT_DELETED,
)
from selfheal_remediator.kube.responses import EvictionResult, Outcome
from tests.pure.remediator import builders
from tests.pure.remediator.builders import NOW, pod
from tests.pure.remediator.fake_api import FakeApi, Json
from tests.pure.remediator.running import NODES, PODS, node, running, until
from tests.pure.remediator.running import pod as raw_pod


def drain(*, after: bool = False) -> NodeDrain:
    """A drain of one pod whose eviction was accepted at NOW."""
    made = NodeDrain("n", "uid-n", NOW, NOW + 600, Surroundings(Drain()), synced=True)
    if after:
        made.watch_on()
    made.pod_changed(None, pod("a"))
    made.begin_wave(0)
    assert made.step(NOW).evict == (pod("a"),)
    made.answered("uid-a", EvictionResult(Outcome.ACCEPTED), NOW)
    return made


@pytest.mark.parametrize("after", [False, True])
def test_it_is_read_and_asked_for_again_ever_later(after: bool) -> None:
    made, now, waits = drain(after=after), NOW, []
    for _ in range(7):
        assert made.step(now).wake == now + CHECK_AFTER
        assert made.step(now + CHECK_AFTER - 1).check == ()
        now += CHECK_AFTER
        assert made.step(now).check == (pod("a"),)
        assert made.step(now).check == ()  # once
        made.checked("uid-a", now, deleted=False)
        actions = made.step(now)
        assert (actions.evict, actions.done) == ((), False)
        (blocker,) = made.blockers(now)
        assert (blocker.cause, blocker.text) == ("not-deleted", NOT_DELETED)
        assert (blocker.pods, blocker.since) == (("default/a",), NOW + CHECK_AFTER)
        assert actions.wake is not None
        waits.append(actions.wake - now)
        now = actions.wake if actions.wake < made.deadline else now + waits[-1]
        if now >= made.deadline:
            break
        assert made.step(now).evict == (pod("a"),)
        assert made.blockers(now)[0].cause == "not-deleted"  # also while it is under way
        made.answered("uid-a", EvictionResult(Outcome.ACCEPTED), now)
        assert made.blockers(now)[0].cause == "not-deleted"
    assert waits[:5] == [10, 20, 40, 80, 160]
    if after:
        assert waits[5:] == [LONGEST_RETRY, LONGEST_RETRY]


def test_a_pod_that_the_watch_shows_as_deleted_is_not_read() -> None:
    made = drain()
    made.pod_changed(pod("a"), pod("a", deletion=NOW + 30))
    assert made.step(NOW + CHECK_AFTER).check == ()
    assert made.blockers(NOW + CHECK_AFTER) == []


def test_where_only_the_watch_is_behind_nothing_is_asked_again() -> None:
    made = drain()
    now = NOW + CHECK_AFTER
    assert made.step(now).check == (pod("a"),)
    made.checked("uid-a", now, deleted=True)
    actions = made.step(now)
    assert (actions.evict, actions.check, actions.wake) == ((), (), now + CHECK_AGAIN)
    assert made.blockers(now) == []
    assert made.step(now + CHECK_AGAIN).check == (pod("a"),)


def test_an_answer_that_comes_after_the_deletion_changes_nothing() -> None:
    made = drain()
    made.step(NOW + CHECK_AFTER)
    made.pod_changed(pod("a"), pod("a", deletion=NOW + 30))
    made.checked("uid-a", NOW + 6, deleted=False)
    assert made.step(NOW + 6).evict == ()
    assert made.blockers(NOW + 6) == []
    made.pod_changed(pod("a"), None)
    made.checked("uid-a", NOW + 7, deleted=False)
    assert made.step(NOW + 7).done


def test_a_refusal_that_follows_is_named_instead() -> None:
    made = drain()
    made.step(NOW + 5)
    made.checked("uid-a", NOW + 5, deleted=False)
    made.step(NOW + 15)
    made.answered("uid-a", EvictionResult(Outcome.WEBHOOK, "no"), NOW + 15)
    assert [blocker.cause for blocker in made.blockers(NOW + 15)] == ["webhook"]


def test_past_the_deadline_it_is_deleted_where_that_is_wanted() -> None:
    made = drain()
    late = made.deadline
    assert made.step(late, on_deadline="delete").check == (pod("a"),)
    made.checked("uid-a", late, deleted=False)
    assert made.step(late, on_deadline="delete").delete == (pod("a"),)
    made.answered("uid-a", EvictionResult(Outcome.ACCEPTED), late)
    assert made.step(late + 5, on_deadline="delete").check == (pod("a"),)


def test_neither_in_dry_run_nor_while_all_is_stopped_is_it_read() -> None:
    made = drain()
    assert made.step(NOW + 60, dry_run=True).check == ()
    assert made.step(NOW + 60, stopped=True).check == ()


class DryRunByWebhook(FakeApi):
    """Accepts evictions; deletes pods only once `honest`."""

    honest = False
    asked = 0

    def _evict(self, path: str, body: Json, *, dry_run: bool) -> tuple[int, Json]:
        self.asked += 1
        return super()._evict(path, body, dry_run=dry_run or not self.honest)


def test_the_whole_remediator_names_it_and_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfheal_remediator.kube.deletion_check.CHECK_AFTER", 0.05)
    monkeypatch.setattr("selfheal_remediator.kube.deletion_check.FIRST_RETRY", 0.05)
    server = DryRunByWebhook(lambda *_: "")
    server.put(f"{NODES}/n1", node("n1", "True"))
    server.put(f"{NODES}/n2", node("n2", "False"))
    server.put(f"{PODS}/a", raw_pod("a", "n1"))
    config = builders.config(signal={"enabled": False}, drain={"headroom": False})
    with running(server, config) as made:
        until("it is asked for again", lambda: server.asked >= 3)
        (run,) = made.draining.running.values()
        assert [b.cause for b in run.drain.blockers(made.clock())] == ["not-deleted"]
        server.honest = True
        until("it goes", lambda: f"{PODS}/a" not in server.objects)
    server.close()
