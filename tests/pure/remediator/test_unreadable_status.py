"""A policy whose status cannot be read: what was restarted before is not known, or is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from selfheal_remediator.healing.engine import Healing
from selfheal_remediator.healing.pod_watches import PodWatches
from selfheal_remediator.healing.policy import Policy, policy_from_json
from selfheal_remediator.healing.policy_watch import PolicyWatch
from selfheal_remediator.healing.status_writer import StatusWriter
from selfheal_remediator.healing.term import Term
from selfheal_remediator.kube.informer import Change
from selfheal_remediator.kube.responses import Answer
from selfheal_remediator.threads.pool import Purpose
from selfheal_remediator.threads.runtime import REAL
from tests.pure.remediator.healing_world import NOW, World, policy_json

LOST: list[Any] = [
    "text",
    ["owners"],
    {"owners": "none"},
    {"owners": [{}]},
    {"owners": [{"uid": 5}]},
    {"owners": [{"uid": "u", "restarts": ["yesterday"]}]},
    {"owners": [{"uid": "u", "gaveUp": 5}]},
    {"owners": [{"uid": "u", "canary": {"pod": "p", "state": "of-another-version"}}]},
    {"owners": [{"uid": "u", "rollout": {"waited": -1}}]},
    {"owners": [{"uid": f"u{n}"} for n in range(51)]},
]
OWNERS = [{"uid": "deploy-web", "restarts": ["2027-01-15T07:59:00Z"], "failures": 1}]
#: Valid, and beyond what can be written as a time.
FAR = ("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59")
HARMLESS: list[dict[str, Any]] = [
    {"restarts": "many"},
    {"lastHealTime": "soon"},
    {"pods": [{"name": "p"}]},
    {"conditions": "none"},
    {"observedGeneration": "1"},
]


class _Api:
    """Takes statuses in, as the API server merges them, and knows the policy."""

    dry_run = False

    def __init__(self, document: dict[str, Any]) -> None:
        self.document, self.patches = document, list[dict[str, Any]]()
        self.refusal = 0

    def patch_policy_status(
        self, namespace: str, name: str, version: str, status: dict[str, Any]
    ) -> Answer:
        self.patches.append(status)
        if self.refusal:
            return Answer(self.refusal, b"no")
        before = self.document["status"]
        merged = {**(before if isinstance(before, dict) else {}), **status}
        self.document["status"] = {k: v for k, v in merged.items() if v is not None}
        meta = self.document["metadata"]
        meta["resourceVersion"] = str(int(meta["resourceVersion"]) + 1)
        return Answer(200, b"", None, self.document)

    def pods_labelled(self, namespace: str, selector: str) -> Any:
        raise AssertionError("no pods are watched")


class _Workers:
    runtime = REAL

    def __init__(self) -> None:
        self.orders: list[tuple[Any, ...]] = []

    def submit(self, job: Callable[[], None], *more: Any) -> None:
        self.orders.append(more)
        job()


class _Nothing:
    def recall_all(self, why: str, policy: str = "") -> None:
        """Nothing is on its way."""


class Stage:
    """The watch of policies and the writer of statuses, in one thread."""

    def __init__(self, status: Any) -> None:
        self.api = _Api(policy_json() | {"status": status})
        self.now = NOW
        term, self.healing = Term(lambda job: job()), Healing(10.0)
        api = cast(Any, self.api)
        self.workers = _Workers()
        workers = cast(Any, self.workers)
        self.statuses = StatusWriter(api, workers, term, self.healing, lambda: self.now)
        none = cast(Any, _Nothing())
        pods = PodWatches(api, term, self.healing, none, lambda: self.now)
        self.watch = PolicyWatch(
            term, self.healing, pods, none, self.statuses, lambda _: None, lambda: self.now
        )
        self.hear()

    @property
    def policy(self) -> Policy:
        return policy_from_json(self.api.document)

    def hear(self) -> None:
        """The watch reports the policy as it is."""
        self.watch.changed(Change(self.policy.key, None, self.policy))

    def run(self, seconds: float) -> None:
        """The writer's turns, and what the watch reports of them."""
        for _ in range(round(seconds)):
            self.now += 1
            written = len(self.api.patches)
            self.statuses.write_due(self.now)
            if len(self.api.patches) > written:
                self.hear()


@pytest.mark.parametrize("status", LOST)
def test_a_history_that_cannot_be_read_is_not_overwritten(
    status: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage(status)
    stage.run(60)
    assert stage.policy.problem
    assert stage.policy.history_lost == ("status.owners" if isinstance(status, dict) else "status")
    owners = status.get("owners") if isinstance(status, dict) else None
    if owners is not None:
        assert stage.api.document["status"]["owners"] == owners
        assert stage.api.document["status"]["state"] == "Degraded"
        assert "status.owners" in stage.api.document["status"]["message"]
    assert len(stage.api.patches) <= 1
    assert len([one for one in caplog.records if "policy ns/web" in one.getMessage()]) == 1


@pytest.mark.parametrize("status", LOST)
def test_nothing_is_restarted_while_the_history_cannot_be_read(status: Any) -> None:
    world = World({"ns/web": policy_json() | {"status": status}}, {"web": 3})
    world.write = lambda key, status: None  # type: ignore[method-assign]
    world.run(60)
    world.break_one("web")
    world.run(300)
    assert not world.restarts
    state = world.healing.policy_states["ns/web"].status
    assert state is not None
    assert state.state.value == "Degraded"


@pytest.mark.parametrize("status", [item for item in LOST if isinstance(item, dict)])
def test_a_person_who_removes_it_starts_the_policy_again(status: Any) -> None:
    stage = Stage(status)
    stage.run(20)
    del stage.api.document["status"]["owners"]
    with pytest.raises(AssertionError, match="no pods are watched"):
        stage.hear()  # they are from now on
    assert not stage.healing.policy_states["ns/web"].records


def test_a_history_that_was_repaired_counts() -> None:
    stage = Stage({"owners": [{**OWNERS[0], "failures": "one"}]})
    stage.run(20)
    stage.api.document["status"]["owners"] = OWNERS
    with pytest.raises(AssertionError, match="no pods are watched"):
        stage.hear()
    assert stage.healing.policy_states["ns/web"].records["deploy-web"].failures == 1


@pytest.mark.parametrize("other", HARMLESS)
def test_what_only_people_read_is_written_again_beside_the_history(other: dict[str, Any]) -> None:
    stage = Stage({"owners": OWNERS, **other})
    assert stage.policy.problem
    with pytest.raises(AssertionError, match="no pods are watched"):
        stage.run(20)
    assert not stage.policy.problem
    assert stage.policy.saved.records[0].failures == 1


def test_a_status_that_somebody_spoils_is_written_again_from_what_is_known() -> None:
    stage = Stage({"owners": OWNERS, "pods": [{"name": "p"}]})
    stage.api.document["status"] = {"owners": "none"}
    stage.hear()
    with pytest.raises(AssertionError, match="no pods are watched"):
        stage.run(20)
    assert stage.policy.saved.records[0].failures == 1


@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("where", ["lastHealTime", "gaveUp", "canary", "condition", "rollout"])
def test_a_time_that_cannot_be_written_again_disables_no_policy(where: str, far: str) -> None:
    canary = {"pod": "p", "restarted": far, "newest": far, "cause": "not-ready", "state": "failed"}
    condition = {"type": "Healthy", "status": "False", "reason": "x", "message": ""}
    statuses: dict[str, dict[str, Any]] = {
        "lastHealTime": {"lastHealTime": far},
        "gaveUp": {"owners": [{**OWNERS[0], "gaveUp": far}]},
        "canary": {"owners": [{**OWNERS[0], "canary": canary}]},
        "condition": {"conditions": [{**condition, "lastTransitionTime": far}]},
        "rollout": {"owners": [{**OWNERS[0], "rollout": {"since": far, "waited": 2**62}}]},
    }
    world = World({"ns/web": policy_json() | {"status": statuses[where]}}, {"web": 3})
    world.run(60)  # its status is written
    assert world.documents["ns/web"]["status"]["replicas"] == 3
    assert policy_from_json(world.documents["ns/web"]).problem == ""


@pytest.mark.parametrize("refusal", [400, 403, 422, 500, 503])
def test_a_status_that_cannot_be_written_is_tried_again_ever_later(
    refusal: int, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage({"owners": "none"})
    stage.api.refusal = refusal
    stage.run(600)
    assert 10 < len(stage.api.patches) <= 20
    written = [one for one in caplog.records if "cannot be written" in one.getMessage()]
    assert len(written) == len(stage.api.patches)
    stage.api.refusal = 0
    stage.run(60)
    assert stage.policy.problem in stage.api.document["status"]["message"]


def test_writes_that_hang_leave_room_for_the_reads_of_others() -> None:
    stage = Stage({"owners": "none"})
    stage.run(2)
    assert stage.workers.orders == [(Purpose.LOOKUPS, "statuses")]  # and others have other keys


def test_what_to_do_is_in_the_status_however_much_of_it_is_wrong() -> None:
    wrong = {"uid": "u", "kind": [9] * 99, "name": [9] * 99, "restarts": ["y" * 999] * 9}
    stage = Stage({"owners": [wrong] * 9})
    stage.run(5)
    message = stage.api.document["status"]["message"]
    assert len(message) <= 1024
    assert "status.owners[0].kind" in message
    command = "kubectl -n ns patch healingpolicy web --subresource=status --type=merge -p "
    assert message.endswith(command + '\'{"status":{"owners":null}}\'')
