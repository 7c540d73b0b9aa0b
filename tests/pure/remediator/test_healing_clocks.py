"""A leader whose predecessor's clock, or a node's, is wrong by hours."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from selfheal_remediator.healing.owners import owner_from
from selfheal_remediator.healing.policy import State, policy_from_json
from tests.pure.remediator.healing_world import NOW, World, policy_json
from tests.pure.remediator.test_canary import KEY, Story
from tests.pure.remediator.test_rollouts import REVISIONS, owner_json

SKEWS = [-7200.0, -3600.0, -600.0, 600.0, 3600.0, 7200.0]
#: What another process wrote by its clock. `newest` is by the API server's.
THEIRS = frozenset(
    {"since", "restarted", "gaveUp", "lastHealTime", "restarts", "lastTransitionTime"}
)


def _shifted(raw: Any, skew: float, key: str = "") -> Any:
    if isinstance(raw, dict):
        return {name: _shifted(value, skew, name) for name, value in raw.items()}
    if isinstance(raw, list):
        return [_shifted(value, skew, key) for value in raw]
    if key in THEIRS and isinstance(raw, str):
        moment = datetime.fromisoformat(raw) + timedelta(seconds=skew)
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return raw


def _taken_over_from_another_clock(made: World, skew: float) -> None:
    made.documents[KEY]["status"] = _shifted(made.documents[KEY]["status"], skew)
    made.new_leader()


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_a_rollout_is_stuck_after_as_long_as_it_was_watched(kind: str, skew: float) -> None:
    status = REVISIONS if kind == "StatefulSet" else {"updatedReplicas": 1}
    made = World({KEY: policy_json("web")}, {"web": 3})
    owner = owner_from(owner_json(kind, **status), kind)
    made.owner = lambda name: owner  # type: ignore[method-assign]
    made.run(500, step=5.0)
    made.break_one("web")
    _taken_over_from_another_clock(made, skew)
    made.run(90, step=5.0)
    assert made.evicted == []
    made.run(150, step=5.0)
    assert len(made.evicted) == 1


def test_a_rollout_of_which_only_a_foreign_time_is_known_begins_again() -> None:
    made = World({KEY: policy_json("web")}, {"web": 3})
    owner = owner_from(owner_json("StatefulSet", **REVISIONS), "StatefulSet")
    made.owner = lambda name: owner  # type: ignore[method-assign]
    made.run(60, step=5.0)
    made.break_one("web")
    [record] = made.documents[KEY]["status"]["owners"]
    record["rollout"] = {**record["rollout"], "since": "2000-01-01T00:00:00Z"}
    del record["rollout"]["waited"]
    made.new_leader()
    made.run(590, step=5.0)
    assert made.evicted == []
    made.run(60, step=5.0)
    assert len(made.evicted) == 1


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("moment", [2, 30])
@pytest.mark.parametrize("cure", [True, False])
def test_a_canary_is_followed_as_if_nobody_had_taken_over(
    skew: float, moment: int, cure: bool
) -> None:
    story = Story()
    story.cure = cure
    story.sicken()
    while not story.evicted:
        story.run(1)
    story.run(moment)
    _taken_over_from_another_clock(story.made, skew)
    story.run(60)
    assert story.evicted == 1
    story.run(1500)
    assert story.evicted == (3 if cure else 1)
    assert story.state is (State.HEALTHY if cure else State.GAVE_UP)


@pytest.mark.parametrize("skew", SKEWS)
def test_pods_that_were_ready_by_their_nodes_clock_prove_nothing_to_a_new_leader(
    skew: float,
) -> None:
    story = Story()
    story.sicken()
    while not story.evicted:
        story.run(1)
    story.run(10)
    for pod in story.made.of("web"):
        if pod.ready:
            moment = story.made.now + skew
            story.made.change(replace(pod, ready_changed=moment))
    story.made.new_leader()
    story.run(40)
    assert story.evicted == 1


def test_moments_that_are_still_to_come_count_as_now() -> None:
    document = policy_json("web")
    document["status"] = {
        "owners": [
            {
                "uid": "o",
                "restarts": ["2099-01-01T00:00:00Z"],
                "gaveUp": "2099-01-01T00:00:00Z",
                "canary": {"pod": "p", "restarted": "2099-01-01T00:00:00Z", "state": "failed"},
            }
        ]
    }
    [record] = policy_from_json(document).saved.taken_over(NOW).records
    assert record.canary is not None
    assert (record.restarts, record.gave_up, record.canary.restarted) == ((NOW,), NOW, NOW)
