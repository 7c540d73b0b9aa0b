"""A node cordoned because of its pods is uncordoned, whatever the policies of others are worth."""

from __future__ import annotations

import time
from typing import Any

import pytest

from selfheal_remediator.config import PODS_HUNG, Config
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import (
    NODES,
    PODS,
    POLICIES,
    node,
    running,
    until_later,
    web_policy,
)


def _cordoned() -> dict[str, Any]:
    ago = int(time.time()) - 600
    state = State(
        Phase.CORDONED,
        "d/selfheal-remediator",
        condition=PODS_HUNG,
        status="True",
        action="cordon",
        first_seen=ago,
        since=ago,
    )
    raw = node("held", "False", unschedulable=True)
    raw["metadata"]["annotations"][STATE_KEY] = state.to_json()
    return raw


@pytest.mark.parametrize(
    ("policy", "trouble", "enabled"),
    [
        (web_policy("theirs"), "", True),
        (web_policy("theirs"), "500", True),  # the list of its pods is refused for ever
        (web_policy("theirs", failureThreshold="many"), "", True),  # this version cannot read it
        (web_policy("theirs"), "", False),
    ],
    ids=["well", "its pods cannot be listed", "it cannot be read", "policies are switched off"],
)
def test_a_node_cordoned_for_its_pods_is_uncordoned(
    policy: dict[str, Any], trouble: str, enabled: bool
) -> None:
    api = FakeApi(lambda verb, path: trouble if (verb, path) == ("GET", PODS) else "")
    api.put(f"{NODES}/held", _cordoned())
    api.put(f"{NODES}/other", node("other", "False"))
    api.put(f"{POLICIES}/theirs", policy)
    config = Config.model_validate(
        {
            "rules": [{"condition": PODS_HUNG, "for": 0, "action": "cordon"}],
            "recovery": {"stabilizationWindow": "0s"},
            "policies": {"enabled": enabled},
        }
    )
    with running(api, config) as remediator:

        def uncordoned() -> bool:
            return "unschedulable" not in api.get(f"{NODES}/held")["spec"]

        until_later(remediator, "it is uncordoned", uncordoned)
    api.close()
