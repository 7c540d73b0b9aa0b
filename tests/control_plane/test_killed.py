"""kill -9 at each API call of a three-node drain: the next process goes on, rightly.

The short form kills at a few seeded calls; SELFHEAL_LONG=1 kills at every one, in each of three
ways. Renewals of the Lease after the first count as one call.
"""

import json
import os
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from remediator.snapshot import Json
from tests.control_plane.conftest import Stages
from tests.control_plane.proxy import Proxy
from tests.control_plane.site import STATE, Remediator, Site
from tests.control_plane.world import World

LEASE = {"duration": "4s", "renewInterval": "1s", "renewDeadline": "3s", "name": "remediator"}
MAX_HELD = 2
MAX_DRAINING = 1
PODS = 2
LONG = os.environ.get("SELFHEAL_LONG") == "1"
SIDE_BY_SIDE = 5
SHORT = 9
#: Only a hang is longer.
PATIENCE = 240.0
#: What became of the call at which the process was killed: it never reached the API server; it
#: was carried out and the answer not heard; it was carried out only after the next one led.
WAYS = ("lost", "unheard", "late")


def test_killed_at_any_call_the_next_goes_on(stages: Stages) -> None:
    whole = _story(stages, 0, "")
    assert whole.wrongs == []
    every = [(number, way) for number in range(1, whole.calls + 1) for way in WAYS]
    points = every if LONG else sorted(random.Random(20260131).sample(every, SHORT))
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        told = list(pool.map(lambda point: _story(stages, *point), points))
    killed = [one for one in told if one.killed_at]
    sys.stderr.write(
        f"\nthe drain takes {whole.calls} calls; killed at {len(killed)} of {len(points)} points "
        f"({len({one.number for one in killed})} different calls)\n"
    )
    wrong = [f"{one.number} {one.way} ({one.killed_at}): {w}" for one in told for w in one.wrongs]
    assert wrong == []
    # Timing moves a few calls at the end; nearly all points must have been reached.
    assert len(killed) >= 0.9 * len(points)


class _Story:
    """Three nodes go bad, are drained under a brake of two, get well and are given back."""

    def __init__(self, site: Site, number: int, way: str) -> None:
        self.site, self.number, self.way = site, number, way
        self.wrongs: list[str] = []
        self.killed_at = ""
        self._processes: list[Remediator] = []
        self._successor_leads = threading.Event()
        self.proxy = Proxy(site.account, self._before, self._after, alone=site.name)
        site.account = self.proxy.kubeconfig(site.account, site.folder / "proxied.kubeconfig")
        self._foreign = f"{site.name}-foreign"
        self._world = World(site, self._over_the_brake, self._undone)

    # -- what must never be seen ----------------------------------------------------------

    def _over_the_brake(self, nodes: dict[str, Json]) -> str:
        held = [name for name, node in nodes.items() if _cordoned(node) and _state(node)]
        if len(held) > MAX_HELD:
            return f"over the brake: {held}"
        draining = [name for name in held if _phase(nodes[name]) == "draining"]
        return f"drained at once: {draining}" if len(draining) > MAX_DRAINING else ""

    def _undone(self, nodes: dict[str, Json]) -> str:
        foreign = nodes[self._foreign]
        if not _cordoned(foreign) or _state(foreign):
            return "a foreign cordon was touched"
        return ""

    # -- the kill -------------------------------------------------------------------------

    def _before(self, number: int) -> bool:
        if number != self.number or self.killed_at or self.way == "unheard":
            return True
        self._kill()
        if self.way == "late":
            self._successor_leads.wait(PATIENCE)
            return True
        return False

    def _after(self, number: int) -> None:
        if number == self.number and not self.killed_at and self.way == "unheard":
            self._kill()

    def _kill(self) -> None:
        self.killed_at = self.proxy.seen[self.number - 1].partition("?")[0]
        self._processes[0].kill()
        self._world.notify()

    # -- the story ------------------------------------------------------------------------

    def tell(self) -> None:
        """All of it. Raises AssertionError when it does not go on."""
        bad, config = self._scene()
        with self._world.watched():
            self._start(config)
            left = set(bad)
            while left:
                drained = self._until(config, lambda: self._drained(left), f"{left} drained")
                assert self.site.pods(drained) == [], f"pods left on {drained}"
                self.site.condition(drained, "False")
                left.remove(drained)
            self._until(config, lambda: not any(self._cordoned(n) for n in bad), "given back")
        self._successor_leads.set()
        self.wrongs += self._world.wrongs
        if self._world.looks < 10:
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
            brakes={"maxHeld": MAX_HELD + 1, "maxDraining": MAX_DRAINING},
            recovery={"holdDown": "50ms"},
            drain={"unmanagedPods": "evict"},
            signal={"enabled": False},
            lease=LEASE,
        )

    def _until(self, config: Path, look, what: str):  # type: ignore[no-untyped-def]
        def alive_and_there():  # type: ignore[no-untyped-def]
            if self._processes[-1].process.poll() is not None:
                self._start(config)
            if len(self._processes) > 1 and "leading as" in self._processes[-1].log:
                self._successor_leads.set()
            return look()

        return self._world.until(alive_and_there, what, PATIENCE)

    def _start(self, config: Path) -> None:
        """As a Deployment would: the container again in its pod, or another pod."""
        assert len(self._processes) < 2, "it ended without being killed"
        pod = "again" if self.way in ("lost", "late") else f"pod-{len(self._processes)}"
        made = self.site.remediator(config, leading=False, POD_NAME=pod, POD_UID=f"uid-{pod}")
        self._processes.append(made)

    def _drained(self, left: set[str]) -> str:
        nodes = self._world.nodes
        return next((name for name in sorted(left) if _phase(nodes[name]) == "drained"), "")

    def _cordoned(self, name: str) -> bool:
        return _cordoned(self._world.nodes[name])

    @property
    def calls(self) -> int:
        """How many calls were counted."""
        return len(self.proxy.seen)


def _story(stages: Stages, number: int, way: str) -> _Story:
    with stages(f"killed-{number}{way and '-'}{way}") as site:
        story = _Story(site, number, way)
        try:
            story.tell()
        except (AssertionError, TimeoutError) as error:
            story.wrongs += [str(error), *site.logs()]
        finally:
            story.proxy.close()
        return story


def _cordoned(node: Json) -> bool:
    return bool(node["spec"].get("unschedulable"))


def _state(node: Json) -> Json:
    text = node["metadata"]["annotations"].get(STATE)
    return json.loads(text) if text else {}


def _phase(node: Json) -> str:
    return str(_state(node).get("phase", ""))
