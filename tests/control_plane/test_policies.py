"""HealingPolicies on a real API server: what it refuses, and what is done to pods."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from selfheal_remediator.kube.responses import Answer
from tests.control_plane.site import Json, Site, moment
from tests.support.loopback import Handler, LoopbackServer
from tests.support.waiting import until

GROUP = "/apis/selfheal.dev/v1alpha1"
CRD = Path(__file__).parents[2] / "chart" / "crds" / "healingpolicy.yaml"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
QUICK = {"notReadyFor": "1s"}
#: Seconds. A remediator that has just started knows only after a minute which pods stay healthy,
#: and restarts one pod of an owner of which it does not know that of most of them.
AFTER_A_TRIAL = 180.0


@pytest.fixture
def site(site: Site) -> Iterator[Site]:
    """A stage on which HealingPolicies are known."""
    answer = site.api.send("POST", CRDS, body=yaml.safe_load(CRD.read_text()))
    assert answer.ok or answer.status == 409, answer.failure()
    until("the type is served", lambda: site.api.send("GET", f"{GROUP}/healingpolicies").ok)
    yield site
    for policy in site.api.get(f"{GROUP}/namespaces/{site.name}/healingpolicies")["items"]:
        site.delete(f"{GROUP}/namespaces/{site.name}/healingpolicies/{policy['metadata']['name']}")


def body(name: str, app: str = "web", **spec: Any) -> Json:
    """A policy for the pods of an app."""
    return {
        "apiVersion": "selfheal.dev/v1alpha1",
        "kind": "HealingPolicy",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": app}},
            "unhealthyWhen": QUICK,
            "failureThreshold": 2,
            **spec,
        },
    }


def selecting(key: str, value: str) -> Json:
    """The selector of pods whose label has the value."""
    return {"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}


def path(site: Site, name: str = "") -> str:
    """Where the test's policies are."""
    base = f"{GROUP}/namespaces/{site.name}/healingpolicies"
    return f"{base}/{name}" if name else base


def make(site: Site, name: str = "web", **spec: Any) -> None:
    """A policy, known to the API server."""
    site.create(path(site), body(name, **spec))


def status(site: Site, name: str = "web") -> Json:
    """A policy's status, {} while it has none."""
    found: Json = site.api.get(path(site, name)).get("status") or {}
    return found


def state(site: Site, name: str = "web") -> str:
    """A policy in one word."""
    return str(status(site, name).get("state", ""))


def holds(site: Site, condition: str, name: str = "web") -> str:
    """A condition's message, empty when it does not hold."""
    for item in status(site, name).get("conditions", ()):
        if item["type"] == condition and item["status"] == "True":
            return str(item["message"] or item["reason"])
    return ""


def config(site: Site, **more: Any) -> Path:
    """Looks as often as may be."""
    return site.config(policies={"evaluationInterval": "1s", **more.pop("policies", {})}, **more)


def pods(site: Site, app: str = "web") -> dict[str, str]:
    """Name and uid of the app's pods that are not on their way out."""
    found = site.pods(app=app)
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"]
        for pod in found
        if not pod["metadata"].get("deletionTimestamp")
    }


def sicken(site: Site, pod: str, ready: str = "False", **container: Any) -> None:
    """Let the pod's status say that it is not ready; optionally what its container says."""
    conditions = [
        {"type": kind, "status": ready, "lastTransitionTime": moment()}
        for kind in ("Ready", "ContainersReady")
    ]
    change: Json = {"conditions": conditions}
    if container:
        change["containerStatuses"] = [
            {
                "name": "main",
                "image": "none",
                "imageID": "",
                "ready": False,
                "restartCount": 1,
                **container,
            }
        ]
    where = f"/api/v1/namespaces/{site.name}/pods/{pod}/status"
    kind = "application/strategic-merge-patch+json"
    answer = site.api.send("PATCH", where, body={"status": change}, content_type=kind)
    assert answer.ok or answer.status == 404, answer.failure()  # it may just have gone


def events(site: Site, reason: str) -> list[tuple[str, str]]:
    """(kind of the object, message) of the Events with this reason."""
    where = f"/api/v1/namespaces/{site.name}/events"
    items = site.api.get(where, {"fieldSelector": f"reason={reason}"})["items"]
    return [(item["involvedObject"]["kind"], item["message"]) for item in items]


# -- the schema ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"selector": {}}, "selector must not be empty"),
        ({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, "In and NotIn need"),
        ({"selector": selecting("a", "front end")}, "should match"),
        ({"selector": selecting("a key", "b")}, "should match"),
        ({"healthThreshold": 0}, "a number of pods of at least 1, or a percentage"),
        ({"healthThreshold": "many"}, "a number of pods of at least 1, or a percentage"),
        ({"healthThreshold": "101%"}, "a number of pods of at least 1, or a percentage"),
        ({"failureThreshold": 0}, "greater than or equal to 1"),
        ({"unhealthyWhen": {}}, "needs at least one of notReadyFor"),
        ({"unhealthyWhen": {"terminatedNonZero": False}}, "needs at least one of notReadyFor"),
        ({"unhealthyWhen": {"notReadyFor": "5 minutes"}}, "from 1s to 24h, such as 5m"),
        ({"unhealthyWhen": {"notReadyFor": "0s"}}, "from 1s to 24h, such as 5m"),
        ({"unhealthyWhen": {"noProgressFor": "60s"}}, "noProgressFor needs progress.port"),
        ({"progress": {"port": 8080}}, "only read for unhealthyWhen.noProgressFor"),
        (
            {"unhealthyWhen": {"waitingReasons": ["ContainerCreating"]}},
            "a pod's ordinary beginning",
        ),
        ({"restart": {"backoff": "1s"}}, "from 5s to 300s"),
        ({"restart": {"maxBackoff": "301s"}}, "from 5s to 300s"),
        ({"restart": {"backoff": "60s", "maxBackoff": "30s"}}, "must not be longer than"),
        ({"restart": {"gracePeriod": "30s"}}, "from 1s to 10s"),
        ({"restart": {"maxPerHour": 0}}, "greater than or equal to 1"),
    ],
)
def test_a_wrong_policy_is_refused_with_what_is_allowed(
    refusing: Callable[[Json], Answer], change: Json, said: str
) -> None:
    answer = refusing(body("wrong", **change))
    assert answer.status == 422, answer.body
    assert said in answer.failure().message


@pytest.mark.parametrize("port", [0, 65536, "Not A Name", "8080"])
def test_a_wrong_port_is_refused(refusing: Callable[[Json], Answer], port: int | str) -> None:
    spec: Json = {"unhealthyWhen": {"noProgressFor": "60s"}, "progress": {"port": port}}
    answer = refusing(body("wrong", **spec))
    assert answer.status == 422, answer.body
    assert "a port number from 1 to 65535 or the name of a container port" in (
        answer.failure().message
    )


@pytest.fixture(scope="module")
def refusing(cluster: Any) -> Callable[[Json], Answer]:
    """Asks the API server for a policy that it may refuse; nothing is kept."""
    from selfheal_remediator.config import ApiBudget
    from selfheal_remediator.kube.access import load_configuration
    from selfheal_remediator.kube.client import KubernetesApi

    access, _ = load_configuration(cluster.kubeconfig)
    api = KubernetesApi(access, "default", ApiBudget(qps=1000, burst=1000))
    answer = api.send("POST", CRDS, body=yaml.safe_load(CRD.read_text()))
    assert answer.ok or answer.status == 409, answer.failure()
    where = f"{GROUP}/namespaces/default/healingpolicies"
    until("the type is served", lambda: api.send("GET", where).ok)
    return lambda policy: api.send("POST", where, {"dryRun": "All"}, policy)


def test_what_a_policy_leaves_out_has_a_value(refusing: Callable[[Json], Answer]) -> None:
    spec = refusing(
        {
            **body("right"),
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "unhealthyWhen": QUICK},
        }
    ).json()["spec"]
    assert (spec["healthThreshold"], spec["failureThreshold"], spec["paused"]) == (1, 3, False)
    assert spec["restart"] == {
        "backoff": "5s",
        "maxBackoff": "300s",
        "maxPerHour": 6,
        "gracePeriod": "10s",
    }


# -- healing ---------------------------------------------------------------------------------


def test_a_pod_that_is_not_ready_is_replaced(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 3)
    make(site)
    process = site.remediator(config(site))
    until("a status", lambda: state(site) == "Healthy")
    before = pods(site)
    unhealthy = min(before)
    sicken(site, unhealthy)

    until("the pod is gone", lambda: unhealthy not in pods(site))
    until("healthy again", lambda: state(site) == "Healthy")
    now = status(site)
    assert (now["replicas"], now["healthyReplicas"], now["restarts"]) == (3, 3, 1)
    assert now["lastHealTime"]
    assert now["observedGeneration"] == 1
    assert set(before) - {unhealthy} < set(pods(site))
    until("Events on owner and policy", lambda: len(events(site, "HealingSucceeded")) == 2)
    assert {kind for kind, _ in events(site, "HealingTriggered")} == {"Deployment", "HealingPolicy"}
    assert site.metric(
        process,
        f'healing_restarts_total{{cause="not-ready",policy="{site.name}/web"}}',
    )


def test_a_budget_that_forbids_is_kept_and_named(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 2)
    site.budget("strict", "web", minAvailable=2)
    make(site)
    site.remediator(config(site))
    unhealthy = min(pods(site))
    sicken(site, unhealthy)
    until("the budget is named", lambda: "strict needs 2, has 1" in holds(site, "Throttled"))
    until("an Event", lambda: events(site, "HealingThrottled"))
    assert unhealthy in pods(site)
    assert status(site)["restarts"] == 0

    site.change_budget("strict", minAvailable=1)
    until("restarted as soon as it may be", lambda: unhealthy not in pods(site))
    until("one restart", lambda: status(site)["restarts"] == 1)


def test_a_pod_that_no_restart_heals_is_given_up(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 2)
    make(site, restart={"maxPerHour": 2})
    process = site.remediator(config(site))
    until("a status", lambda: state(site) == "Healthy")
    is_healthy = max(pods(site))

    def all_but_one_unhealthy() -> bool:
        for pod in site.pods(app="web"):
            name = pod["metadata"]["name"]
            if name != is_healthy and pod["status"]["phase"] == "Running":
                sicken(site, name)
        return state(site) == "GaveUp"

    until("given up", all_but_one_unhealthy, AFTER_A_TRIAL)
    assert status(site)["restarts"] == 2
    until("an Event", lambda: events(site, "HealingGaveUp"))
    assert "2 restarts within" in holds(site, "GaveUp")
    left = pods(site)

    # The next leader knows it too.
    process.kill()
    another = site.remediator(config(site))
    given_up = f'policy_state{{policy="{site.name}/web",state="GaveUp"}}'
    until("the next leader gave up as well", lambda: site.metric(another, given_up))
    assert pods(site) == left
    # A change of the policy is a new chance, within the same budget.
    site.patch(path(site, "web"), {"spec": {"restart": {"maxPerHour": 3}}})
    until("one more", lambda: status(site)["restarts"] == 3, AFTER_A_TRIAL)


def test_a_new_leader_keeps_the_hourly_budget(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 2)
    make(site, restart={"maxPerHour": 1})
    first = site.remediator(config(site))
    until("a status", lambda: state(site) == "Healthy")
    unhealthy = min(pods(site))
    sicken(site, unhealthy)
    until("restarted", lambda: unhealthy not in pods(site))
    assert status(site)["restarts"] == 1  # written down before the eviction
    first.kill()
    until("both are back", lambda: site.available("web") == 2)
    sicken(site, min(pods(site)))
    left = pods(site)
    site.remediator(config(site))
    until("nothing is left of the budget", lambda: state(site) == "GaveUp", AFTER_A_TRIAL)
    assert pods(site) == left


def test_a_pod_that_waits_for_its_image_is_reported_only(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 2)
    waiting: Json = {
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    }
    make(site, unhealthyWhen={"waitingReasons": ["CrashLoopBackOff"]})
    site.remediator(config(site))
    until("a status", lambda: state(site) == "Healthy")
    first, second = sorted(pods(site))
    sicken(site, first, **waiting)
    until("seen", lambda: state(site) == "Degraded")
    [report] = status(site)["pods"]
    assert (report["name"], report["cause"]) == (first, "ImagePullBackOff")
    assert "no such image" in report["detail"]

    crashing: Json = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    sicken(site, second, **crashing)
    until("the crashing one is restarted meanwhile", lambda: second not in pods(site))
    assert first in pods(site)


def test_a_rollout_is_left_alone(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 2)
    make(site)
    process = site.remediator(config(site))
    until("a status", lambda: state(site) == "Healthy")
    # A new template whose pods fit nowhere: the rollout stands still in its middle.
    template = {"spec": {"template": {"spec": {"nodeSelector": {"nowhere": "there"}}}}}
    site.patch(f"/apis/apps/v1/namespaces/{site.name}/deployments/web", template)
    until("a pod of the new template waits for a node", lambda: len(pods(site)) == 3)
    old = min(name for name in pods(site) if site.phase_of(name) == "Running")
    sicken(site, old)
    until("it says why it waits", lambda: "rollout" in holds(site, "Throttled"))
    assert old in pods(site)
    assert status(site)["restarts"] == 0
    assert "restarted" not in process.log


def test_zero_wanted_is_idle_and_too_high_a_threshold_is_reported(site: Site) -> None:
    site.nodes(1)
    site.deployment("web", 1)
    make(site, healthThreshold=5)
    site.remediator(config(site))
    until("it says so", lambda: "counts as 1" in holds(site, "ThresholdAboveDesired"))
    scale = f"/apis/apps/v1/namespaces/{site.name}/deployments/web"
    site.patch(scale, {"spec": {"replicas": 0}})
    until("idle", lambda: state(site) == "Idle")
    assert status(site)["replicas"] == 0
    site.patch(scale, {"spec": {"replicas": 1}})
    until("active again", lambda: state(site) == "Healthy")


def test_paused_means_hands_off(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 2)
    make(site, paused=True)
    site.remediator(config(site))
    until("a status", lambda: state(site) == "Paused")
    unhealthy = min(pods(site))
    sicken(site, unhealthy)
    until("it is reported", lambda: status(site).get("pods"))
    site.annotate_lease("selfheal.dev/paused", "maintenance")
    site.patch(path(site, "web"), {"spec": {"paused": False}})
    until("the pause of all holds", lambda: "maintenance" in holds(site, "Throttled"))
    assert unhealthy in pods(site)
    assert site.command("resume").returncode == 0
    until("restarted", lambda: unhealthy not in pods(site))


def test_dry_run_restarts_nothing_and_says_it_once(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 2)
    make(site)
    process = site.remediator(config(site, mode="dryRun"))
    process.says("selects the pods")
    unhealthy = min(pods(site))
    sicken(site, unhealthy)
    process.says(f"dry-run: {unhealthy} would be restarted")
    assert unhealthy in pods(site)
    assert status(site) == {}


def test_without_the_type_nodes_are_managed_all_the_same(site: Site) -> None:
    site.delete(f"{CRDS}/healingpolicies.selfheal.dev")
    until("it is gone", lambda: site.api.send("GET", f"{GROUP}/healingpolicies").status == 404)
    bad = site.nodes(2)[0]
    process = site.remediator(config(site))
    process.says("is not installed (kubectl apply")
    site.condition(bad, "True")
    until("nodes are served", lambda: site.cordoned(bad))
    assert process.log.count("is not installed") == 1
    answer = site.api.send("POST", CRDS, body=yaml.safe_load(CRD.read_text()))
    assert answer.ok, answer.failure()
    until("the type is served", lambda: site.api.send("GET", f"{GROUP}/healingpolicies").ok)


def test_a_deleted_policy_leaves_nothing_behind(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 2)
    make(site)
    process = site.remediator(config(site))
    until("a status", lambda: state(site) == "Healthy")
    series = f'policy_pods{{policy="{site.name}/web",state="healthy"}}'
    until("its numbers", lambda: site.metric(process, series) == 2)
    assert "finalizers" not in site.api.get(path(site, "web"))["metadata"]
    site.delete(path(site, "web"))
    until("it is gone at once", lambda: site.api.send("GET", path(site, "web")).status == 404)
    until("so are its numbers", lambda: site.metric(process, series) == 0)
    unhealthy = min(pods(site))
    sicken(site, unhealthy)
    make(site, "other", app="nothing")
    until("another policy was evaluated meanwhile", lambda: state(site, "other") == "Idle")
    assert unhealthy in pods(site)


def test_a_pod_that_will_not_go_is_named_never_forced(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 2)
    make(site, unhealthyWhen={"terminatingFor": "1s"})
    process = site.remediator(config(site))
    until("a status", lambda: state(site) == "Healthy")
    held = min(pods(site))
    where = f"/api/v1/namespaces/{site.name}/pods/{held}"
    site.patch(where, {"metadata": {"finalizers": ["example.com/kept"]}})
    site.delete(where)
    until("it is reported", lambda: status(site).get("pods"))
    [report] = status(site)["pods"]
    assert (report["name"], report["cause"]) == (held, "Terminating")
    assert "example.com/kept" in report["detail"]
    until("an Event", lambda: events(site, "PodStuck"))
    assert site.metric(process, 'api_requests_total{code="200",verb="DELETE"}') == 0
    site.patch(where, {"metadata": {"finalizers": None}})


def test_plan_and_status_say_what_would_be_done_and_what_was(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 2)
    site.budget("strict", "web", minAvailable=2)
    make(site, failureThreshold=1)
    unhealthy, is_healthy = sorted(pods(site))
    sicken(site, unhealthy)
    budget = f"/apis/policy/v1/namespaces/{site.name}/poddisruptionbudgets/strict"
    until("the budget knows it", lambda: site.api.get(budget)["status"]["currentHealthy"] == 1)

    def planned() -> list[Json]:
        found = site.command("plan", "-o", "json")
        assert found.returncode == 0, found.stderr
        return [item for item in json.loads(found.stdout)["pods"] if site.name in item["pod"]]

    [item] = until("its time is over", planned)
    assert (item["pod"], item["action"]) == (f"{site.name}/{unhealthy}", "restart")
    assert item["why"].startswith("NotReady for")
    assert "strict needs 2, has 1" in item["waits"]
    assert f"{site.name}/{unhealthy}  restart (waits)" in site.command("plan").stdout
    assert "not evaluated yet" in site.command("status").stdout
    assert set(pods(site)) == {unhealthy, is_healthy}

    site.change_budget("strict", minAvailable=1)
    site.remediator(config(site))
    until("healed", lambda: status(site).get("restarts") == 1 and state(site) == "Healthy")
    found = json.loads(site.command("status", "-o", "json").stdout)
    [mine] = [item for item in found["policies"] if item["policy"] == f"{site.name}/web"]
    assert (mine["state"], mine["healthy"], mine["restarts"]) == ("Healthy", 2, 1)
    assert f"{site.name}/web" in site.command("status").stdout


# -- progress and correlation ------------------------------------------------------------------


class Work(LoopbackServer):
    """Answers /progress as a worker would, on an address that KWOK's pods are given."""

    def __init__(self) -> None:
        self.answer: Json = {"in_flight": 0, "last_progress": 0.0, "ready": True}
        self.asked = 0
        work = self

        class Progress(Handler):
            def do_GET(self) -> None:
                work.asked += 1
                self.reply(work.answer)

        super().__init__(Progress)


@pytest.fixture
def work() -> Iterator[Work]:
    """Where the pods of a test say how their work goes."""
    found = Work()
    yield found
    found.close()


def _lives_at(site: Site, pod: str, address: str) -> None:
    where = f"/api/v1/namespaces/{site.name}/pods/{pod}/status"
    change = {"podIP": address, "podIPs": [{"ip": address}]}
    site.patch(where, {"status": change})


def test_work_that_stands_still_is_a_hung_pod(site: Site, work: Work) -> None:
    site.nodes(2)
    site.deployment("web", 2, terminationGracePeriodSeconds=300)
    make(
        site,
        unhealthyWhen={"noProgressFor": "3s"},
        progress={"port": work.port},
        restart={"gracePeriod": "2s"},
    )
    silent, hung = sorted(pods(site))
    _lives_at(site, silent, "127.0.0.2")  # nobody answers there
    _lives_at(site, hung, "127.0.0.1")
    site.remediator(config(site))
    until("it is asked", lambda: work.asked >= 5)
    until("a status", lambda: state(site) == "Healthy")
    work.answer = {"in_flight": 3, "last_progress": 0.0, "oldest_age": 9.0, "ready": False}
    asked = work.asked
    until("it says that it rightly waits", lambda: work.asked >= asked + 5)
    assert hung in pods(site)

    work.answer |= {"ready": True}
    until("restarted", lambda: hung not in pods(site))
    assert silent in pods(site)
    until("Events on owner and policy", lambda: len(events(site, "HealingTriggered")) == 2)
    [message] = {text for kind, text in events(site, "HealingTriggered") if kind == "Deployment"}
    assert "NoProgress" in message
    assert "3 in flight" in message


def _apart(app: str) -> Json:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": app}},
    }


def test_pods_of_two_owners_unhealthy_on_one_node_are_the_nodes_matter(site: Site) -> None:
    first, second = site.nodes(2)
    for app in ("web", "api"):
        site.deployment(app, 2, topologySpreadConstraints=[_apart(app)])
    make(site, "web")
    make(site, "api", app="api")
    rules = [{"condition": "PodsHung", "for": "1s", "action": "drain"}]
    # Held for long enough to be seen.
    slow = {"drain": {"headroom": False}, "recovery": {"stabilizationWindow": "15s"}}
    process = site.remediator(config(site, rules=rules, **slow))
    until("statuses", lambda: state(site, "web") == state(site, "api") == "Healthy")
    # Both are seen before anything may be done: which is unhealthy first is not what is tested.
    site.annotate_lease("selfheal.dev/paused", "until both are seen")
    process.says("paused: until both are seen")
    for name in site.names(first):
        sicken(site, name)
    for app in ("web", "api"):
        until(f"{app} is unhealthy", lambda app=app: holds(site, "Throttled", app))  # type: ignore[misc]
    assert not site.cordoned(first)
    assert site.command("resume").returncode == 0
    until("the node is held", lambda: site.cordoned(first))
    assert site.state(first)["condition"] == "PodsHung"
    until("and emptied", lambda: site.phase(first) == "drained")
    assert status(site, "web")["restarts"] == status(site, "api")["restarts"] == 0
    assert not site.cordoned(second)
    until("uncordoned when nobody is unhealthy there any more", lambda: not site.cordoned(first))


def test_siblings_unhealthy_everywhere_are_the_images_fault(site: Site) -> None:
    site.nodes(2)
    site.deployment("web", 4)
    make(site, unhealthyWhen={"waitingReasons": ["CrashLoopBackOff"]}, failureThreshold=4)
    site.remediator(config(site))
    until("a status", lambda: state(site) == "Healthy")
    before = pods(site)
    site.patch(path(site, "web"), {"spec": {"paused": True}})
    until("paused", lambda: state(site) == "Paused")
    crashing: Json = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    for name in before:
        sicken(site, name, **crashing)
    until("all are seen", lambda: len(status(site).get("pods", ())) == 4)
    site.patch(path(site, "web"), {"spec": {"paused": False}})

    def given_up() -> bool:
        for name in pods(site).keys() - before.keys():  # the canary's replacement crashes too
            if site.phase_of(name) == "Running":
                sicken(site, name, **crashing)
        return state(site) == "GaveUp"

    until("given up", given_up)
    assert "on every node" in holds(site, "GaveUp")
    until("Events on owner and policy", lambda: len(events(site, "HealingGaveUp")) == 2)
    assert {kind for kind, _ in events(site, "HealingGaveUp")} == {"Deployment", "HealingPolicy"}
    assert len(pods(site).keys() & before.keys()) == 3
    assert status(site)["restarts"] == 1
