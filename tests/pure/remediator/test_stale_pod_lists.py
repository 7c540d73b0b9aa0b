"""A node counts as empty only by a list of its pods that is no cache's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.node.annotation import STATE_KEY, Phase, State, parse_state
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import BAD, NODES, PODS, node, pod, running, until, until_later

#: Of one owner, and more than an owner may put on a drained node again.
PODS_THERE = ("a", "b", "c", "d", "e", "f")


class Lagging(FakeApi):
    """Its cache shows no pods that are not `known` to it, and its watch tells nothing of them."""

    def __init__(self, known: tuple[str, ...]) -> None:
        self.known = known
        self.lists: list[bool] = []
        #: So many lists of what is there are refused.
        self.refused = 0
        super().__init__(lambda *_: "")
        self.put(f"{NODES}/good", node("good", "False"))
        for name in PODS_THERE:
            self.put(f"{PODS}/{name}", pod(name, "bad"))

    def _read(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        status, found = super()._read(path, query)
        if path == "/api/v1/pods" and "spec.nodeName" in query.get("fieldSelector", ""):
            cached = query.get("resourceVersion") == "0"
            if not cached and self.refused:
                self.refused -= 1
                return 500, {"kind": "Status", "code": 500}
            self.lists.append(cached)
            if cached:
                items = [raw for raw in found["items"] if raw["metadata"]["name"] in self.known]
                found = {**found, "items": items}
        return status, found

    def phase(self) -> Phase | None:
        """Of the bad node."""
        text = self.get(BAD)["metadata"]["annotations"].get(STATE_KEY)
        return parse_state(text).phase if text else None


@pytest.fixture(params=[(), ("a",), PODS_THERE], ids=["empty", "one", "all"])
def api(request: pytest.FixtureRequest) -> Iterator[Lagging]:
    made = Lagging(request.param)
    yield made
    made.close()


def _config(mode: str = "enforce") -> Config:
    return Config.model_validate(
        {
            "mode": mode,
            "rules": [{"condition": "Fault", "for": 0, "action": "drain"}],
            "limits": {"maxUnavailable": "100%"},
            "policies": {"enabled": False},
            "drain": {"headroom": False},
        }
    )


@pytest.mark.parametrize("taken_over", [True, False])
def test_nothing_is_left_behind_that_a_cache_does_not_show(api: Lagging, taken_over: bool) -> None:
    raw = node("bad", "True", unschedulable=True) if taken_over else node("bad", "True")
    if taken_over:
        state = State(Phase.DRAINING, "d/selfheal-remediator", "Fault", "True", action="drain")
        raw["metadata"]["annotations"][STATE_KEY] = state.to_json()
    api.put(BAD, raw)
    evicted_when_drained: list[int] = []
    with running(api, _config()):
        until("it is drained", lambda: api.phase() is Phase.DRAINED)
        order = [verb for verb, path, _ in api.did if verb == "EVICT" or path == BAD]
        evicted_when_drained.append(order[:-1].count("EVICT"))
    assert evicted_when_drained == [len(PODS_THERE)]
    assert api.lists == [True, False]


def test_the_list_is_read_until_it_can_be() -> None:
    api = Lagging(())
    api.refused = 4
    api.put(BAD, node("bad", "True"))
    try:
        with running(api, _config()) as remediator:
            until_later(remediator, "it is drained", lambda: api.phase() is Phase.DRAINED)
            assert sum(verb == "EVICT" for verb, _, _ in api.did) == len(PODS_THERE)
            assert api.refused == 0
    finally:
        api.close()


def test_a_dry_run_counts_them_too(caplog: pytest.LogCaptureFixture) -> None:
    api = Lagging(())
    api.put(BAD, node("bad", "True"))
    caplog.set_level("INFO")
    try:
        with running(api, _config("dryRun")):
            until("it is over", lambda: "pods would be evicted" in caplog.text)
    finally:
        api.close()
    assert "dry-run: 6 pods would be evicted" in caplog.text
    assert json.dumps(api.lists) == "[true, false]"
