"""Whether it is known that the pods of a draining node fit elsewhere, whoever leads.

The annotation says so before the first pod is evicted: `drainUsed` is at least 1. A drain of which
it does not say so is checked by who leads next; one of which it does is not given up any more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.drain.running import RunningDrain
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from selfheal_remediator.node.work_clock import WorkClock
from tests.pure.remediator import builders
from tests.pure.remediator.builders import NOW
from tests.pure.remediator.crowded_cluster import BAD, CrowdedCluster
from tests.pure.remediator.running import (
    node,
    running,
    stamp,
    until,
    until_later,
)
from tests.pure.remediator.test_drain_delay import drain

CONFIG = Config.model_validate(
    {
        "rules": [{"condition": "Fault", "for": 0, "action": "drain"}],
        "limits": {"maxUnavailable": "100%", "minAllowed": 3},
        "policies": {"enabled": False},
        "recovery": {"stabilizationWindow": "1h"},
        "drain": {"autoscaler": "absent"},
    }
)


class Cluster(CrowdedCluster):
    """A node with a pod that fits nowhere else, unless `roomy`; `broken`: requests that fail."""

    def __init__(self) -> None:
        self.broken: tuple[str, str] | None = None
        #: How many evictions were asked for, also in dry run.
        self.asked = 0
        super().__init__(self._trouble)

    def _trouble(self, verb: str, path: str) -> str:
        self.asked += path.endswith("/eviction")
        return "500" if self.broken == (verb, path) else ""

    def turns(self, status: str) -> None:
        """What the detector writes, now."""
        with self.changing(BAD) as raw:
            raw["status"]["conditions"][1] |= {"status": status, "lastTransitionTime": stamp(0)}

    def drained_by_another(self, ago: int, used: int) -> None:
        """A predecessor began the drain so many seconds ago."""
        begun = int(time.time()) - ago
        owner = "d/selfheal-remediator"
        state = State(
            *(Phase.DRAINING, owner, "Fault", "True"),
            action="drain",
            since=begun,
            drain_started=begun,
            drain_used=used,
        )
        raw = node("bad", "True", unschedulable=True)
        raw["metadata"]["annotations"][STATE_KEY] = state.to_json()
        self.put(BAD, raw)

    def evicted(self) -> bool:
        """Whether the pod went."""
        return any(verb == "EVICT" for verb, _, _ in self.did)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.close()


@pytest.mark.parametrize("ago", [0, 3, 50, 3600])
def test_a_drain_of_which_it_is_not_known_is_checked_by_who_leads_next(
    cluster: Cluster, ago: int
) -> None:
    cluster.drained_by_another(ago, used=0)
    with running(cluster, CONFIG):
        until("it is decided", lambda: cluster.state().no_room or cluster.evicted())
    assert not cluster.evicted()
    assert cluster.state().phase is Phase.CORDONED


@pytest.mark.parametrize("ago", [0, 50])
def test_what_was_begun_is_not_given_up_for_lack_of_room(cluster: Cluster, ago: int) -> None:
    """Its evicted pods may have taken the room that the rest was to have."""
    cluster.drained_by_another(ago, used=1)
    with running(cluster, CONFIG):
        until("it is drained", lambda: cluster.state().phase is Phase.DRAINED)
    assert cluster.evicted()


def test_it_is_written_down_before_the_first_pod_goes(cluster: Cluster) -> None:
    cluster.add_room()
    with running(cluster, CONFIG) as remediator:
        until("it knows the nodes", lambda: remediator.known_once)
        cluster.turns("True")
        until("it is drained", lambda: cluster.state().phase is Phase.DRAINED)
    verbs = [verb for verb, _, _ in cluster.did]
    written = [
        raw["metadata"]["annotations"][STATE_KEY]
        for _, path, raw in cluster.did[: verbs.index("EVICT")]
        if path == BAD
    ]
    assert [json.loads(text).get("drainUsed", 0) for text in written] == [0, 1]


def test_in_dry_run_it_is_drained_without_it(cluster: Cluster) -> None:
    cluster.add_room()
    with running(cluster, CONFIG.model_copy(update={"mode": "dryRun"})) as remediator:
        until("it knows the nodes", lambda: remediator.known_once)
        cluster.turns("True")
        until("the pod's eviction is tried", lambda: cluster.asked)
    assert not cluster.evicted()


def test_while_it_cannot_be_written_down_no_pod_goes(cluster: Cluster) -> None:
    cluster.add_room()
    cluster.drained_by_another(0, used=0)
    cluster.broken = ("PATCH", BAD)
    with running(cluster, CONFIG) as remediator:
        until("it drains", lambda: bool(remediator.draining.running))
        entry = remediator.planner.entries[f"uid-{BAD}"]
        until_later(remediator, "it is tried again", lambda: entry.failures > 1)
        assert not cluster.evicted()
        cluster.broken = None
        until_later(remediator, "it is drained", lambda: cluster.state().phase is Phase.DRAINED)
    assert cluster.evicted()


# -- one drain -------------------------------------------------------------------------------


def _run() -> RunningDrain:
    made = drain()
    made.not_before = NOW
    made.begin_wave(0)
    return RunningDrain(made, WorkClock(600.0), unrecorded=True)


def test_nothing_is_evicted_before_it_is_written_down() -> None:
    assert _run().drain.step(NOW, unrecorded=True).evict == ()
    assert _run().drain.step(NOW).evict


def test_while_it_cannot_be_written_down_its_deadline_waits() -> None:
    run = _run()
    run.credit(NOW, stopped=False)
    run.credit(NOW + 500, stopped=False)
    assert run.drain.deadline == NOW + 1100


def test_an_empty_node_is_drained_without_it() -> None:
    run = _run()
    for item in list(run.drain.evictions.values()):
        run.drain.pod_changed(item.pod, None)
    assert run.to_note(NOW, stopped=False) is None
    assert run.drain.step(NOW, unrecorded=True).done


def test_a_pause_before_the_check_does_not_pass_for_it() -> None:
    """What its end writes down is no sign that the check was made."""
    run = _run()
    run.drain.synced = False
    assert run.to_note(NOW + 500, stopped=False) is None
    run.pause(NOW + 500, stopped=False)
    assert run.resume(NOW + 510, stopped=False) == 10
    assert run.used(NOW + 510) == 0


def test_it_is_written_down_when_pods_could_go_and_counts_when_it_is_there() -> None:
    run = _run()
    assert run.to_note(NOW, stopped=True) is None
    assert run.to_note(NOW, stopped=False) == 1
    assert run.used(NOW) == 0
    assert not run.recorded(0)
    assert run.recorded(1)
    assert not run.recorded(1)
    assert (run.used(NOW), run.to_note(NOW, stopped=False)) == (1, None)


@pytest.mark.parametrize("headroom", [True, False])
def test_only_what_is_checked_is_written_down(cluster: Cluster, headroom: bool) -> None:
    settings = builders.config(mode="enforce").drain.model_copy(update={"headroom": headroom})
    cluster.add_room()
    with running(cluster, CONFIG.model_copy(update={"drain": settings})) as remediator:
        until("it knows the nodes", lambda: remediator.known_once)
        cluster.turns("True")
        until("it is drained", lambda: cluster.state().phase is Phase.DRAINED)
    changes = [raw for _, path, raw in cluster.did if path == BAD]
    assert len(changes) == 2 + headroom
