"""kill -9 at each API call while two unhealthy pods are restarted: the next process continues.

The short form kills at a few seeded calls; SELFHEAL_LONG=1 kills at every one, in each of three
ways. A kill between the note of a restart and the restart costs one of the hour's budget, no more.
"""

from pathlib import Path

import yaml

from selfheal_remediator.kube.objects import Json
from tests.control_plane.conftest import Stages
from tests.control_plane.kill_at_call import LEASE, Story, kill_everywhere
from tests.control_plane.site import Site
from tests.control_plane.test_policies import CRD, CRDS, GROUP, body, path, sicken, status
from tests.control_plane.world import World
from tests.support.waiting import until

PODS = 4
#: Two unhealthy pods, and one that a kill may cost.
MAX_PER_HOUR = 3
SHORT = 5


def test_killed_at_any_call_of_a_restart_the_next_continues(stages: Stages) -> None:
    kill_everywhere(stages, _Restarts, "restart", SHORT)


class _Restarts(Story):
    """Of four pods two are unhealthy; they are recreated one after the other."""

    def __init__(self, site: Site, number: int, way: str) -> None:
        super().__init__(site, number, way)
        self.world = World(site, self._healthy_ones_stay, self._one_at_a_time, pods="app=web")
        self._unhealthy: set[str] = set()
        self._healthy: set[str] = set()
        self._went: set[str] = set()

    # -- what must never be seen ----------------------------------------------------------

    def _healthy_ones_stay(self, pods: dict[str, Json]) -> str:
        gone = self._healthy - _there(pods)
        return f"a pod that was healthy was restarted: {sorted(gone)}" if gone else ""

    def _one_at_a_time(self, pods: dict[str, Json]) -> str:
        """When an unhealthy pod goes, all pods but those still unhealthy are there and ready."""
        gone = self._unhealthy - _there(pods)
        new, self._went = gone - self._went, gone
        ready = sum(_ready(pod) and not _leaving(pod) for pod in pods.values())
        if new and ready < PODS - len(self._unhealthy) + len(gone) - 1:
            return f"{sorted(new)} went while only {ready} pods were ready"
        return ""

    # -- the story ------------------------------------------------------------------------

    def tell(self) -> None:
        site = self.site
        config = self._scene()
        _make_policy(site)
        with self.world.watched():
            self.start(config)
            self.until(
                config, "recreated", lambda: self._unhealthy <= self._went and self._all_ready()
            )
            self.until(config, "well, it says", lambda: status(site).get("state") == "Healthy")
        self.wrongs += self.world.wrongs
        written = status(site)["restarts"]
        if not len(self._unhealthy) <= written <= MAX_PER_HOUR:
            self.wrongs.append(f"{len(self._unhealthy)} restarts, {written} written down")

    def _scene(self) -> Path:
        site = self.site
        site.nodes(2)
        site.deployment("web", PODS)
        names = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in site.pods(app="web")}
        unhealthy = sorted(names)[:2]
        self._unhealthy = {names[name] for name in unhealthy}
        self._healthy = set(names.values()) - self._unhealthy
        for name in unhealthy:
            sicken(site, name)
        return site.config(
            rules=[{"condition": "TestFault", "for": "1h", "action": "cordon"}],
            # Other stories run side by side.
            policies={"evaluationInterval": "1s", "namespaces": [site.name]},
            lease=LEASE,
        )

    def _all_ready(self) -> bool:
        pods = self.world.objects
        return sum(_ready(pod) and not _leaving(pod) for pod in pods.values()) == PODS


def _make_policy(site: Site) -> None:
    """A HealingPolicy that does not wait for long."""
    answer = site.api.send("POST", CRDS, body=yaml.safe_load(CRD.read_text()))
    assert answer.ok or answer.status == 409, answer.failure()
    until("the type is served", lambda: site.api.send("GET", f"{GROUP}/healingpolicies").ok)
    site.create(path(site), body("web", restart={"maxPerHour": MAX_PER_HOUR}))


def _there(pods: dict[str, Json]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods.values() if not _leaving(pod)}


def _leaving(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
