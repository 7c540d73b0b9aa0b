"""A ladder carried out by the whole remediator, from the drain to the uncordon; and killed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.kube.lease import LABEL
from selfheal_remediator.node.annotation import EXCLUDE_KEY, STEP_OBJECT_KEY
from tests.pure.remediator import running as support
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.killing import Killer
from tests.pure.remediator.running import (
    BAD,
    LEASE,
    NODES,
    AtOnce,
    StillClock,
    advance,
    leave,
    node,
    pause,
    phase,
    stamp,
    state_of,
    until_at_rest,
    until_later,
)
from tests.support.samples import sample

JOBS = "/apis/batch/v1/namespaces/d/jobs"
ATTACHED = "/apis/storage.k8s.io/v1/volumeattachments/csi-1"
TEMPLATE = {"spec": {"containers": [{"name": "c", "image": "i"}]}}


def job(**more: Any) -> dict[str, Any]:
    return {"job": {"template": TEMPLATE, **more}, "settle": "2s", "timeout": "15s"}


def config(*steps: dict[str, Any], **more: Any) -> Config:
    rule = {"condition": "Fault", "for": 0, "action": "drain", "heartbeat": None}
    about = {**rule, "then": list(steps), **more.pop("rule", {})}
    values = {
        "rules": [about],
        "recovery": {"stabilizationWindow": "5s"},
        "limits": {"minSchedulable": 0, "maxUnavailable": "100%"},
        "policies": {"enabled": False},
        "drain": {"headroom": False},
    }
    return Config.model_validate({**values, **more})


@pytest.fixture
def api() -> Iterator[FakeApi]:
    made = FakeApi(lambda verb, path: "")
    made.put(BAD, node("bad", "True"))
    made.put(f"{NODES}/good", node("good", "False"))
    yield made
    made.close()


def running(
    api: FakeApi, about: Config, clock: StillClock | None = None
) -> AbstractContextManager[AtOnce]:
    """The whole remediator, for which time passes only while it waits: steps end by deadlines."""
    return support.running(api, about, clock or StillClock())


def created(api: FakeApi) -> list[str]:
    """The Jobs that were created, in order."""
    return [path for verb, path, _ in api.did if verb == "POST" and path.startswith(JOBS)]


def is_noted(api: FakeApi) -> bool:
    """Whether the Node says which Job is its step's: the call that creates one ends with that."""
    return STEP_OBJECT_KEY in api.get(BAD)["metadata"]["annotations"]


def recovers(api: FakeApi, boot: str = "1", *, status: str = "False") -> None:
    with api.changing(BAD) as raw:
        raw["status"]["nodeInfo"]["bootID"] = boot
        for item in raw["status"]["conditions"]:
            if item["type"] == "Fault":
                item["status"] = status


def worsens(api: FakeApi) -> None:
    recovers(api, status="True")


def finish(api: FakeApi, path: str, kind: str = "Complete") -> None:
    condition = {"type": kind, "status": "True", "reason": "BackoffLimitExceeded"}
    with api.changing(path) as raw:
        raw["status"] = {"conditions": [condition]}


def in_service(api: FakeApi) -> bool:
    return not api.get(BAD)["spec"].get("unschedulable")


def test_a_job_that_helps_ends_the_ladder(api: FakeApi) -> None:
    with running(api, config(job(), job())) as remediator:
        until_later(remediator, "its Job is there", lambda: created(api))
        made = api.get(created(api)[0])
        assert made["spec"]["template"]["spec"]["nodeName"] == "bad"
        assert phase(api) == "repairing"
        finish(api, created(api)[0])
        until_later(remediator, "the end is written", lambda: state_of(api).get("stepEnded"))
        recovers(api)
        until_later(remediator, "it is in service", lambda: in_service(api))
        name = "selfheal_remediator_repair_steps_total"
        registry = remediator.metrics.registry
        assert sample(registry, name, kind="job", result="succeeded") == 1
    assert len(created(api)) == 1


def test_what_does_not_help_is_followed_by_the_next_and_the_node_stays_out(api: FakeApi) -> None:
    with running(api, config({"wait": "2s", "settle": 0}, job())) as remediator:
        until_later(remediator, "its Job is there", lambda: created(api))
        assert state_of(api)["steps"] == 2
        finish(api, created(api)[0], "Failed")
        until_later(remediator, "it has failed", lambda: phase(api) == "repair_failed")
        advance(remediator, 7200)
        assert not in_service(api)
    assert len(created(api)) == 1


def test_a_step_is_left_while_it_is_read_only_and_taken_up_again_then(api: FakeApi) -> None:
    older = _two_remediators(api)
    with running(api, config({"wait": "6h", "settle": 0})) as remediator:
        name, repairs = "selfheal_remediator_read_only", remediator.parts.repairs
        until_later(remediator, "its step runs", lambda: repairs.running)
        api.put(f"{LEASE.rpartition('/')[0]}/older", older)
        until_later(remediator, "it rests", lambda: sample(remediator.metrics.registry, name))
        assert not repairs.running  # nothing would remove a node that goes meanwhile
        api.put(f"{LEASE.rpartition('/')[0]}/older", None)
        until_later(remediator, "its step runs again", lambda: repairs.running)


def test_steps_that_hang_hold_up_no_check_for_other_remediators(api: FakeApi) -> None:
    """Nor the other reads, on which drains and restarts depend."""
    older = _two_remediators(api)
    asked, released = list[str](), threading.Event()

    def hang(_: str, path: str) -> str:
        if path.startswith(JOBS):
            asked.append(path)
            released.wait(60)
        return ""

    api.disturb = hang
    for number in range(5):
        api.put(f"{NODES}/bad-{number}", node(f"bad-{number}", "True"))
    limits = {"minSchedulable": 0, "maxUnavailable": "100%", "maxDraining": 9, "maxRepairing": 9}
    more: dict[str, Any] = {"limits": limits, "signal": {"enabled": False}}
    with running(api, config(job(), **more, api={"maxInFlight": 4})) as remediator:
        until_later(remediator, "steps hang", lambda: len(asked) >= 3)
        api.put(f"{LEASE.rpartition('/')[0]}/older", older)
        name = "selfheal_remediator_read_only"
        until_later(remediator, "it is found", lambda: sample(remediator.metrics.registry, name))
        assert len(asked) == len(set(asked))  # none has been given up and sent again
        released.set()


def _two_remediators(api: FakeApi) -> dict[str, Any]:
    """Our Lease, and that of one that comes first."""
    mine = {"name": "selfheal-remediator", "namespace": "d", "creationTimestamp": stamp(60)}
    api.put(LEASE, {"metadata": mine, "spec": {"holderIdentity": ""}})
    spec = {"holderIdentity": "theirs", "leaseDurationSeconds": 3600, "renewTime": stamp(0)}
    meta = {"name": "older", "namespace": "d", "labels": {LABEL: "true"}}
    return {"metadata": {**meta, "creationTimestamp": stamp(86400)}, "spec": spec}


def test_a_step_that_does_not_end_fails_by_its_timeout(api: FakeApi) -> None:
    with running(api, config(job(), job())) as remediator:
        until_later(remediator, "the second Job is there", lambda: len(created(api)) == 2)
        assert state_of(api)["steps"] == 2


def test_an_api_server_that_is_away_at_the_deadline_is_no_failure(api: FakeApi) -> None:
    """Else the next step, which may be worse, would follow one that helped."""
    refused: list[str] = []
    away: list[bool] = []

    def refuse(verb: str, path: str) -> str:
        if not away or not path.startswith(f"{JOBS}/"):
            return ""
        refused.append(path)
        return "503"

    api.disturb = refuse
    with running(api, config(job(), job())) as remediator:
        until_later(remediator, "its Job is there", lambda: created(api))
        away.append(True)
        finish(api, created(api)[0])
        advance(remediator, 20)
        until_later(remediator, "it is asked again and again", lambda: len(refused) > 4)
        away.clear()
        until_later(remediator, "the end is written", lambda: state_of(api).get("stepEnded"))
        assert not state_of(api).get("stepFailed")


def test_a_pause_does_not_use_up_a_step(api: FakeApi) -> None:
    """Else the next step would begin at once when it is over, and this one never had."""
    paused: list[bool] = []
    api.disturb = lambda verb, path: "503" if (verb, path) == ("POST", JOBS) and not paused else ""
    with running(api, config({**job(), "timeout": "2m"}, job())) as remediator:
        until_later(remediator, "its step is begun", lambda: phase(api) == "repairing")
        pause(api, "by hand")
        until_later(remediator, "it is paused", lambda: remediator.parts.authority.paused)
        until_at_rest(remediator)
        paused.append(True)
        hour_later = remediator.clock() + 3600
        until_later(remediator, "it lasts", lambda: minutes_pass(remediator, hour_later))
        assert not created(api)
        pause(api, None)
        until_later(remediator, "its Job is there", lambda: created(api))
        assert (state_of(api)["steps"], state_of(api).get("stepFailed")) == (1, None)


def test_a_pause_does_not_use_up_a_step_of_a_predecessor(api: FakeApi) -> None:
    """Who takes over meanwhile does not know when it began."""
    about = config({**job(), "timeout": "2m"}, job())
    api.disturb = lambda verb, path: "503" if (verb, path) == ("POST", JOBS) else ""
    with running(api, about) as remediator:
        until_later(remediator, "its step is begun", lambda: phase(api) == "repairing")
        pause(api, "by hand")
        until_later(remediator, "it is paused", lambda: remediator.parts.authority.paused)
        until_at_rest(remediator)
    api.disturb = lambda verb, path: ""
    leave(api)
    clock = StillClock()
    clock.advance(3600)
    with running(api, about, clock) as remediator:
        until_later(remediator, "it is taken up", lambda: remediator.parts.repairs.running)
        assert remediator.parts.authority.paused
        hour_later = clock() + 3600
        until_later(remediator, "it lasts", lambda: minutes_pass(remediator, hour_later))
        pause(api, None)
        until_later(remediator, "its Job is there", lambda: created(api))
        assert (state_of(api)["steps"], state_of(api).get("stepFailed")) == (1, None)


def test_another_leader_gives_a_step_what_is_left_of_its_time(api: FakeApi) -> None:
    about = config({**job(), "timeout": "3m"}, job())
    with running(api, about) as remediator:
        begun = remediator.clock()
        until_later(remediator, "a minute is used", lambda: state_of(api).get("stepUsed"), 2.0)
        assert 60 <= state_of(api)["stepUsed"] <= remediator.clock() - begun
    leave(api)
    clock = StillClock()
    clock.advance(7200)  # by which nobody led, or by which it is ahead
    with running(api, about, clock) as remediator:
        until_later(remediator, "it is taken up", lambda: remediator.parts.repairs.running)
        begun = clock()
        until_later(remediator, "the second Job is there", lambda: len(created(api)) == 2, 2.0)
        assert 115 < clock() - begun < 140
        assert state_of(api).get("stepUsed") is None


def test_another_leader_waits_as_long_whatever_its_clock_says(api: FakeApi) -> None:
    about = config({"wait": "2m", "settle": 0}, job())
    with running(api, about) as remediator:
        until_later(remediator, "it waits", lambda: remediator.parts.repairs.running)
    leave(api)
    clock = StillClock()
    clock.advance(7200)
    with running(api, about, clock) as remediator:
        until_later(remediator, "it is taken up", lambda: remediator.parts.repairs.running)
        begun = clock()
        until_later(remediator, "the Job is there", lambda: created(api), 2.0)
        assert 110 < clock() - begun < 140


def minutes_pass(remediator: Remediator, until: float) -> bool:
    advance(remediator, 4)
    return remediator.clock() >= until


def test_a_step_that_did_not_begin_before_the_node_recovered_does_not_begin(api: FakeApi) -> None:
    """A pause, or an API server that is away, may be long. Bad again, it is this step's turn."""
    away: list[bool] = [True]
    api.disturb = lambda verb, path: "503" if (verb, path) == ("POST", JOBS) and away else ""
    about = config({**job(), "timeout": "30m"}, job(), recovery={"stabilizationWindow": "1m"})
    with running(api, about) as remediator:
        until_later(remediator, "its step is begun", lambda: phase(api) == "repairing")
        recovers(api)
        until_later(remediator, "it is withdrawn", lambda: reported(api, "RepairStepWithdrawn"))
        until_at_rest(remediator)
        away.clear()
        worsens(api)
        until_later(remediator, "its Job is there", lambda: created(api))
        assert state_of(api)["steps"] == 1
        recovers(api)  # what was begun is ended
        advance(remediator, 120)
        finish(api, created(api)[0])
        until_later(remediator, "it is in service", lambda: in_service(api))
    assert len(created(api)) == 1


OBSERVED = {"name": "all", "nodeSelector": {}, "mode": "observe"}


@pytest.mark.parametrize(
    "more",
    [{"groups": [OBSERVED]}, {"limits": {"minSchedulable": 0, "maxRepairing": 0}}],
    ids=["its group observes", "the limit is lower"],
)
def test_nor_does_one_that_may_not_begin_any_more(api: FakeApi, more: dict[str, Any]) -> None:
    """As one whose window closed during a pause, or whose node was excluded meanwhile."""
    away: list[bool] = [True]
    api.disturb = lambda verb, path: "503" if (verb, path) == ("POST", JOBS) and away else ""
    step = {**job(), "timeout": "30m"}
    with running(api, config(step)) as remediator:
        until_later(remediator, "its step is begun", lambda: phase(api) == "repairing")
        remediator.post(partial(remediator.reconfigure, config(step, **more)))
        until_later(remediator, "it is withdrawn", lambda: reported(api, "RepairStepWithdrawn"))
        until_at_rest(remediator)
        away.clear()
        until_later(remediator, "it is cordoned", lambda: not state_of(api).get("steps"))
        assert not created(api)
        remediator.post(partial(remediator.reconfigure, config(step)))
        until_later(remediator, "its Job is there", lambda: created(api))
        assert state_of(api)["steps"] == 1


def test_an_end_that_cannot_be_written_down_is_kept(api: FakeApi) -> None:
    refused: list[str] = []
    done: list[bool] = []

    def refuse(verb: str, path: str) -> str:
        if not done or verb != "PATCH" or path != BAD or len(refused) > 8:
            return ""
        refused.append(path)
        return "503"

    api.disturb = refuse
    with running(api, config(job(), job())) as remediator:
        until_later(remediator, "its Job is noted", lambda: is_noted(api))
        until_at_rest(remediator)
        done.append(True)
        finish(api, created(api)[0])
        until_later(remediator, "it is written", lambda: refused)
        api.put(created(api)[0], None)  # its time to live is over
        until_later(remediator, "the end is written", lambda: state_of(api).get("stepEnded"))
        assert not state_of(api).get("stepFailed")
        name = "selfheal_remediator_repair_steps_total"
        registry = remediator.metrics.registry
        assert sample(registry, name, kind="job", result="succeeded") == 1
    assert len(created(api)) == 1


def test_a_reboot_has_succeeded_when_the_boot_id_changes(api: FakeApi) -> None:
    rule = {"latched": True, "verify": {"condition": {"type": "Ready"}, "timeout": "1h"}}
    about = config(job(succeededBy="bootID"), rule=rule)
    with running(api, about) as remediator:
        until_later(remediator, "its Job is there", lambda: created(api))
        finish(api, created(api)[0], "Failed")  # with the node under it
        recovers(api, boot="2")
        until_later(remediator, "it is verified", lambda: phase(api) == "verifying")
        with api.changing(BAD) as raw:
            for item in raw["status"]["conditions"]:
                item["lastHeartbeatTime"] = stamp(-36000)
        until_later(remediator, "it is in service", lambda: in_service(api))
    assert len(created(api)) == 1


def test_its_volumes_are_detached_before(api: FakeApi) -> None:
    spec = {"nodeName": "bad", "attacher": "csi", "source": {}}
    api.put(ATTACHED, {"metadata": {"name": "csi-1"}, "spec": spec})
    with running(api, config(job())) as remediator:
        until_later(remediator, "it waits", lambda: "until detached: csi-1" in why(remediator))
        assert phase(api) == "drained"
        assert not created(api)
        api.put(ATTACHED, None)
        until_later(remediator, "its Job is there", lambda: created(api))


def test_without_a_read_of_the_volumes_no_step_begins(api: FakeApi) -> None:
    """Nor by what was read before: the node waits for its turn meanwhile."""
    refused: list[bool] = [True]
    attachments = ATTACHED.rpartition("/")[0]
    api.disturb = lambda verb, path: "403" if path == attachments and refused else ""
    with running(api, config(job(), limits={"minSchedulable": 0, "maxRepairing": 0})) as remediator:
        until_later(remediator, "it is reported", lambda: reported(api, "VolumesUnknown"))
        assert "VolumeAttachments cannot be read" in why(remediator)
        refused.clear()
        until_later(remediator, "it waits", lambda: "is to begin" in why(remediator))
        refused.append(True)
        until_later(remediator, "again", lambda: "cannot be read" in why(remediator))
        remediator.post(partial(remediator.reconfigure, config(job())))
        advance(remediator, 60)
        until_later(remediator, "it is drained", lambda: remediator.planner.attached)
        assert phase(api) == "drained"
        refused.clear()
        until_later(remediator, "its Job is there", lambda: created(api))


def reported(api: FakeApi, reason: str) -> bool:
    return any(event["reason"] == reason for event in api.reported)


def why(remediator: Remediator) -> str:
    entry = remediator.planner.entry_named("bad")
    return entry.assessment.why if entry is not None else ""


def test_an_excluded_node_is_not_touched(api: FakeApi) -> None:
    def exclude(verb: str, path: str) -> str:
        """Between the step's annotation and its Job."""
        if path == BAD and verb == "GET" and phase(api) == "repairing":
            with api.changing(BAD) as raw:
                raw["metadata"]["annotations"][EXCLUDE_KEY] = "by hand"
        return ""

    api.disturb = exclude
    with running(api, config(job())) as remediator:
        until_later(remediator, "it is excluded", lambda: standing(remediator) == "excluded")
        advance(remediator, 60)
    assert not created(api)


def standing(remediator: Remediator) -> str:
    entry = remediator.planner.entry_named("bad")
    return entry.assessment.standing if entry is not None else ""


def test_in_dry_run_nothing_is_created(api: FakeApi) -> None:
    asked: list[str] = []

    def note(verb: str, path: str) -> str:
        asked.extend([path] if verb == "POST" and path == JOBS else [])
        return ""

    api.disturb = note
    with running(api, config(job(), job(), mode="dryRun")) as remediator:
        until_later(remediator, "the Job is checked", lambda: asked)
        advance(remediator, 7200)
        until_later(remediator, "it stands", lambda: standing(remediator) == "repairing")
    assert asked == [JOBS]
    assert not created(api)
    assert in_service(api)


# -- killed at each call -------------------------------------------------------------------


def _repaired(api: FakeApi, remediator: Remediator, killed: Callable[[], bool]) -> bool:
    """Plays the cluster's part; whether all is done, or the process was killed."""
    for path in created(api):
        if "status" not in api.get(path):
            finish(api, path, "Failed" if path == created(api)[0] else "Complete")
    if len(created(api)) == 2 and state_of(api).get("stepEnded"):
        recovers(api)
    return killed() or (in_service(api) and len(created(api)) > 0)


@pytest.mark.parametrize("at", range(1, 13))
def test_killed_at_any_call_each_step_runs_once(api: FakeApi, at: int) -> None:
    about = config(job(), job(), {"wait": "2s"})
    killer = Killer(at, "lost", (BAD, JOBS))
    api.disturb = killer
    with running(api, about) as remediator:
        until_later(remediator, "killed", lambda: _repaired(api, remediator, lambda: killer.dead))
    assert killer.dead
    api.disturb = lambda verb, path: ""
    leave(api)
    with running(api, about) as remediator:
        until_later(remediator, "repaired", lambda: _repaired(api, remediator, lambda: False))
    names = created(api)
    assert len(names) == len(set(names)) == 2
    marks = [api.get(path)["metadata"]["annotations"]["selfheal.dev/occurrence"] for path in names]
    assert [mark[-2:] for mark in marks] == ["-1", "-2"]
