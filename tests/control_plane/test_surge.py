"""The only pod of a Deployment leaves its node by a rollout, whoever is killed at which call.

The short form kills at a few seeded changes; SELFHEAL_LONG=1 kills at every call, in each of three
ways. The Deployment's controller, the scheduler and the budget's controller are the real ones.
"""

from pathlib import Path

from ci.parts import ensure
from selfheal_remediator.drain.surge import SURGED_KEY
from selfheal_remediator.kube.objects import Json
from tests.control_plane.conftest import Stages
from tests.control_plane.kill_at_call import LEASE, LONG, Story, kill_everywhere
from tests.control_plane.permissions import chart_permissions
from tests.control_plane.site import Site
from tests.control_plane.world import World
from tests.support.waiting import until

ON = ("--set", "remediator.config.drain.surge=true")
APPS = "/apis/apps/v1/namespaces"
SHORT = 6


def grant(site: Site) -> None:
    """What the chart grants with the value, instead of what it grants without."""
    rules = chart_permissions(ensure(["helm"])["helm"], *ON)["ClusterRole"]
    role = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{site.name}-remediator"
    site.patch(role, {"rules": rules})


def only_pod(site: Site, **spec: object) -> str:
    """`web` with one replica that its budget needs; returns the pod's node."""
    grant(site)
    site.nodes(3)
    site.deployment("web", 1)
    path = f"{APPS}/{site.name}/deployments/web"
    wanted = {"annotations": {"selfheal.dev/surge": "true"}}
    site.patch(path, {"metadata": wanted, "spec": spec})
    site.budget("web", "web", minAvailable=1)
    [pod] = site.pods(app="web")
    return str(pod["spec"]["nodeName"])


def rollouts(site: Site) -> int:
    """How many pod templates there have been beside the first."""
    sets = site.api.get(f"{APPS}/{site.name}/replicasets")["items"]
    return len(sets) - 1


def test_the_plan_says_what_is_rolled_out_and_the_drain_does_it(site: Site) -> None:
    bad = only_pod(site)
    config = site.config(drain={"surge": True}, recovery={"stabilizationWindow": "1h"})
    shown = site.command("plan", bad, config=config).stdout
    assert f"Deployment {site.name}/web would be rolled out (surge)" in shown, shown
    site.remediator(config)
    site.condition(bad, "True")
    until("drained", lambda: site.phase(bad) == "drained")
    until("the event", lambda: site.event_messages(bad, "SurgeStarted"))
    until("one pod", lambda: len(site.pods(app="web")) == 1)
    assert site.pods(bad) == []
    assert rollouts(site) == 1
    query = {"fieldSelector": "reason=SurgeStarted"}
    assert site.api.get(f"/api/v1/namespaces/{site.name}/events", query)["items"]


def test_a_strategy_that_stops_the_old_pod_first_is_reported(site: Site) -> None:
    bad = only_pod(site, strategy={"type": "Recreate", "rollingUpdate": None})
    config = site.config(drain={"surge": True}, recovery={"stabilizationWindow": "1h"})
    site.remediator(config)
    site.condition(bad, "True")
    why = f"no surge of Deployment {site.name}/web: its strategy is Recreate"
    until(why, lambda: any(why in text for text in site.event_messages(bad, "DrainBlocked")))
    status = site.command("status", config=config).stdout
    assert why in status, status
    assert len(site.pods(bad)) == 1
    assert rollouts(site) == 0


def test_killed_at_any_call_no_pod_is_missing_or_left_over(stages: Stages) -> None:
    kill_everywhere(stages, _Surge, "surge", SHORT)


class _Surge(Story):
    """A node with the only pod of a Deployment is drained."""

    changes_only = not LONG

    def __init__(self, site: Site, number: int, way: str) -> None:
        super().__init__(site, number, way)
        self.world = World(site, self._nobody_serves, self._too_many, pods="app=web")

    # -- what must never be seen ----------------------------------------------------------

    def _nobody_serves(self, pods: dict[str, Json]) -> str:
        return "" if any(map(_serves, pods.values())) else f"no pod is ready: {sorted(pods)}"

    def _too_many(self, pods: dict[str, Json]) -> str:
        there = [name for name, pod in pods.items() if not _leaving(pod)]
        # The one, the new one, and what its old ReplicaSet makes of an eviction, for a moment.
        return f"more than a rollout needs: {there}" if len(there) > 3 else ""

    # -- the story ------------------------------------------------------------------------

    def tell(self) -> None:
        site = self.site
        bad = only_pod(site)
        before = _deployment(site)["spec"]
        config = self._config()
        with self.world.watched():
            site.condition(bad, "True")
            self.start(config)
            self.until(config, f"{bad} drained", lambda: site.phase(bad) == "drained")
            self.until(config, "one pod", lambda: len(self.world.objects) == 1)
        self.wrongs += self.world.wrongs
        if site.pods(bad):
            self.wrongs.append(f"pods left on {bad}")
        if rollouts(site) != 1:
            self.wrongs.append(f"{rollouts(site)} rollouts")
        after = _deployment(site)["spec"]
        marks = after["template"]["metadata"].pop("annotations")
        if marks.keys() != {SURGED_KEY} or after != before:
            self.wrongs.append(f"more was changed than a rollout needs: {marks}, {after}")

    def _config(self) -> Path:
        return self.site.config(
            rules=[{"condition": "TestFault", "for": "50ms", "action": "drain"}],
            recovery={"stabilizationWindow": "1h"},
            signal={"enabled": False},
            drain={"surge": True},
            lease=LEASE,
        )


def _deployment(site: Site) -> Json:
    return site.api.get(f"{APPS}/{site.name}/deployments/web")


def _leaving(pod: Json) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _serves(pod: Json) -> bool:
    """Whether a Service sends requests to it."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return ready and not _leaving(pod)
