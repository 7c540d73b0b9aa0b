"""A change that a pause kept from being sent: what waited for it is not left waiting."""

from __future__ import annotations

import json
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.failures import NotLeader
from selfheal_remediator.node.annotation import STATE_KEY
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import NODES, node, running, until

NODE = f"{NODES}/n1"


def _phase(api: FakeApi) -> str:
    text = (api.get(NODE)["metadata"].get("annotations") or {}).get(STATE_KEY)
    return str(json.loads(text)["phase"]) if text else ""


@pytest.mark.parametrize("times", [1, 3])
def test_the_end_of_a_drain_that_was_not_sent_is_written_down_later(times: int) -> None:
    api = FakeApi(lambda *_: "")
    api.put(NODE, node("n1", "False"))
    api.put(f"{NODES}/n2", node("n2", "False"))
    rules = [{"condition": "Fault", "for": 0, "action": "drain"}]
    config = Config.model_validate({"rules": rules, "drain": {"headroom": False}})
    kept: list[str] = []
    with running(api, config) as made:
        patch = made.parts.api.patch_node

        def refused(name: str, body: Any, **more: Any) -> Any:
            if "drained" in json.dumps(body) and len(kept) < times:
                kept.append(name)  # a pause began in this moment, and is over
                raise NotLeader
            return patch(name, body, **more)

        made.parts.api.patch_node = refused  # type: ignore[method-assign, assignment]
        api.put(NODE, node("n1", "True"))
        until("it is not sent", lambda: len(kept) == times)
        until("it is written down", lambda: _phase(api) == "drained")
    api.close()
