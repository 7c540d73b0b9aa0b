"""kill -9 at each API call of a three-node drain: the next process continues, rightly.

The short form kills at a few seeded calls; SELFHEAL_LONG=1 kills at every one, in each of three
ways. Renewals of the Lease after the first count as one call.
"""

import json
from pathlib import Path

from selfheal_remediator.kube.objects import Json
from tests.control_plane.conftest import Stages
from tests.control_plane.kill_at_call import LEASE, Story, kill_everywhere
from tests.control_plane.site import STATE, Site
from tests.control_plane.world import World

MAX_HELD = 2
MAX_DRAINING = 1
PODS = 2
SHORT = 9


def test_killed_at_any_call_the_next_continues(stages: Stages) -> None:
    kill_everywhere(stages, _Drains, "killed", SHORT)


class _Drains(Story):
    """Three nodes go bad, are drained under a limit of two, get well and are uncordoned."""

    def __init__(self, site: Site, number: int, way: str) -> None:
        super().__init__(site, number, way)
        self._foreign = f"{site.name}-foreign"
        self.world = World(site, self._over_the_limit, self._undone)

    # -- what must never be seen ----------------------------------------------------------

    def _over_the_limit(self, nodes: dict[str, Json]) -> str:
        cordoned = [name for name, node in nodes.items() if _cordoned(node) and _state(node)]
        if len(cordoned) > MAX_HELD:
            return f"over the limit: {cordoned}"
        draining = [name for name in cordoned if _phase(nodes[name]) == "draining"]
        return f"drained at once: {draining}" if len(draining) > MAX_DRAINING else ""

    def _undone(self, nodes: dict[str, Json]) -> str:
        foreign = nodes[self._foreign]
        if not _cordoned(foreign) or _state(foreign):
            return "a foreign cordon was touched"
        return ""

    # -- the story ------------------------------------------------------------------------

    def tell(self) -> None:
        bad, config = self._scene()
        with self.world.watched():
            self.start(config)
            left = set(bad)
            while left:
                drained = self.until(config, f"{left} drained", lambda: self._drained(left))
                assert self.site.pods(drained) == [], f"pods left on {drained}"
                self.site.condition(drained, "False")
                left.remove(drained)
            self.until(config, "uncordoned", lambda: not any(self._cordoned(n) for n in bad))
        self.wrongs += self.world.wrongs
        if self.world.looks < 10:
            self.wrongs.append("nothing was seen")
        for node in (self._foreign, f"{self.site.name}-spare"):
            if len(self.site.pods(node)) != 1:
                self.wrongs.append(f"a pod of {node} was evicted")

    def _scene(self) -> tuple[list[str], Path]:
        site = self.site
        bad = site.nodes(3)
        others = [site.node("foreign"), site.node("spare")]
        site.cordon(others[0])
        for node in others:
            site.pod(f"{node.rpartition('-')[2]}-pod", node)
        for node in bad:
            for pod in range(PODS):
                site.pod(f"{node[-1]}-{pod}", node)
            site.condition(node, "True")
        return bad, site.config(
            rules=[{"condition": "TestFault", "for": "50ms", "action": "drain"}],
            # One place is the foreign cordon's.
            limits={"maxUnavailable": MAX_HELD + 1, "maxDraining": MAX_DRAINING},
            recovery={"stabilizationWindow": "50ms"},
            drain={"unmanagedPods": "evict"},
            signal={"enabled": False},
            lease=LEASE,
        )

    def _drained(self, left: set[str]) -> str:
        nodes = self.world.objects
        return next((name for name in sorted(left) if _phase(nodes[name]) == "drained"), "")

    def _cordoned(self, name: str) -> bool:
        return _cordoned(self.world.objects[name])


def _cordoned(node: Json) -> bool:
    return bool(node["spec"].get("unschedulable"))


def _state(node: Json) -> Json:
    text = node["metadata"]["annotations"].get(STATE)
    return json.loads(text) if text else {}


def _phase(node: Json) -> str:
    return str(_state(node).get("phase", ""))
