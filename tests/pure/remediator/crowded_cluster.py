"""A node with a pod that fits nowhere else, before the whole remediator."""

from __future__ import annotations

from collections.abc import Callable

from selfheal_remediator.node.annotation import STATE_KEY, Phase, State, parse_state
from tests.pure.remediator.fake_api import FakeApi
from tests.pure.remediator.running import NODES, PODS, node, pod

BAD = f"{NODES}/bad"


class CrowdedCluster(FakeApi):
    """The node `bad` has the pod `web`; the other node takes none. disturb: as in FakeApi."""

    def __init__(self, disturb: Callable[[str, str], str]) -> None:
        super().__init__(disturb)
        self.put(f"{NODES}/good", node("good", "False"))
        self.put(BAD, node("bad", "False"))
        self.put(f"{PODS}/web", pod("web", "bad"))

    def add_room(self) -> None:
        """A node comes that takes all pods."""
        raw = node("roomy", "False")
        raw["status"]["allocatable"] = {"cpu": "8", "memory": "8Gi", "pods": "110"}
        self.put(f"{NODES}/roomy", raw)

    def state(self, name: str = "bad") -> State:
        """Our annotation."""
        text = self.get(f"{NODES}/{name}")["metadata"]["annotations"].get(STATE_KEY)
        return parse_state(text) if text else State(Phase.SEEN)
