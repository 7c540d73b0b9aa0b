"""The whole remediator against an API server that is disturbed for seconds, by a seed: it does
what it has to once it can, and in all that time touches nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from selfheal_remediator.config import Config
from selfheal_remediator.controller.loop import Remediator
from selfheal_remediator.node.annotation import STATE_KEY
from tests.pure.remediator.fake_api import DISTURBANCES, FakeApi
from tests.pure.remediator.running import NODES, PODS, node, pod, running, stamp

CONFIG = Config.model_validate(
    {
        "rules": [{"condition": "Fault", "for": 0, "action": "drain"}],
        # Beside the node that is cordoned by somebody else, which counts.
        "limits": {"maxUnavailable": 2, "maxDraining": 1},
        "recovery": {"stabilizationWindow": "200ms", "maxFlaps": 1000},
        "drain": {"headroom": False},
        "signal": {"enabled": False},
        "policies": {"enabled": False},
        "lease": {"duration": "2s", "renewInterval": "200ms", "renewDeadline": "1s"},
    }
)
LONG = os.environ.get("SELFHEAL_LONG") == "1"
PATIENCE = 120.0
#: Disturbed requests; sixty take half a minute.
TROUBLES = 60 if LONG else 8
SEEDS = range(1, 7) if LONG else (4,)


class Story:
    """Node `bad` is bad, `theirs` is bad and cordoned by somebody else, `good` is healthy."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.troubled = threading.Event()
        self.seen: Counter[str] = Counter()
        self.api = FakeApi(self._disturb)
        for made in (
            node("bad", "True"),
            node("good", "False"),
            node("theirs", "True", unschedulable=True),
        ):
            self.api.put(f"{NODES}/{made['metadata']['name']}", made)
        for where in ("bad", "good", "theirs"):
            for number in range(4):
                name = f"{where}-{number}"
                self.api.put(f"{PODS}/{name}", pod(name, where))

    def _disturb(self, _verb: str, _path: str) -> str:
        if not self.troubled.is_set() or self.chance.random() > 0.5:
            return ""
        trouble = self.chance.choice(DISTURBANCES)
        self.seen[trouble] += 1
        return trouble

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for it; each change of the server is a reason to look."""
        ends = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < ends, f"{what}: never; {[d[:2] for d in self.api.did[-9:]]}"
            with self.api.news:
                self.api.news.wait(0.5)

    def phase(self, name: str) -> str:
        raw = self.api.get(f"{NODES}/{name}")["metadata"]["annotations"].get(STATE_KEY)
        return str(json.loads(raw)["phase"]) if raw else ""

    def changed(self) -> dict[str, set[str]]:
        """Names of what was changed, by kind of change."""
        found: dict[str, set[str]] = {"EVICT": set(), "nodes": set()}
        for verb, path, _ in self.api.did:
            kind, name = path.rsplit("/", 2)[1:]
            if verb == "EVICT":
                found["EVICT"].add(name)
            elif kind == "nodes":
                found["nodes"].add(name)
        return found


@pytest.fixture(params=SEEDS)
def story(request: pytest.FixtureRequest) -> Iterator[Story]:
    made = Story(request.param)
    yield made
    made.api.close()


@pytest.fixture
def remediator(
    story: Story, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Remediator]:
    """The real thing with real threads, connected to the story's server."""
    # A disturbed watch may fall silent; a real server sends a bookmark a minute, this one none.
    monkeypatch.setattr("selfheal_remediator.kube.transport.WATCH_SILENCE", 3.0)
    caplog.set_level(logging.ERROR)
    with running(story.api, CONFIG) as made:
        yield made
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_it_does_what_it_has_to_and_nothing_else(story: Story, remediator: Remediator) -> None:
    story.troubled.set()
    # While the node is being worked on.
    story.until("a good deal of trouble", lambda: sum(story.seen.values()) >= TROUBLES)
    story.troubled.clear()
    story.until("the bad node is empty", lambda: story.phase("bad") == "drained")
    assert story.changed() == {"EVICT": {f"bad-{n}" for n in range(4)}, "nodes": {"bad"}}
    assert story.api.get(f"{NODES}/bad")["spec"]["unschedulable"] is True

    story.troubled.set()
    before = sum(story.seen.values())
    with story.api.changing(f"{NODES}/bad") as recovered:
        recovered["status"] = node("bad", "False")["status"]
        recovered["status"]["conditions"][1]["lastTransitionTime"] = stamp(0)
    story.until("more trouble", lambda: sum(story.seen.values()) >= before + TROUBLES // 2)
    story.troubled.clear()
    story.until("it is uncordoned", lambda: story.phase("bad") == "healed")
    assert not story.api.get(f"{NODES}/bad")["spec"].get("unschedulable")
    assert story.changed() == {"EVICT": {f"bad-{n}" for n in range(4)}, "nodes": {"bad"}}
    assert remediator.healthy() == ""
