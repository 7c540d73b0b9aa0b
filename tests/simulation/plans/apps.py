"""The pods of a cluster whose plan is compared with what happens: of all owners, by a seed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from selfheal_remediator.kube.pods import SAFE_TO_EVICT
from tests.simulation.cluster import objects
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.kubelets import Behaviour
from tests.simulation.cluster.messages import Json
from tests.simulation.plans.settings import POOL

SYSTEM = {"priorityClassName": "system-cluster-critical"}
#: Annotations of pods, by which their containers behave.
RUNS, WAITS = "simulation/runs", "simulation/waits"
_ALWAYS = {"operator": "Exists"}
#: What may keep a drain from its end until its deadline.
_STUCK = ("_a_guarded_pod", "_a_pod_with_two_budgets", "_a_terminating_pod", "_a_pending_pod")


def behaviour(pod: Json) -> Behaviour:
    """How the pod behaves, by its annotations."""
    marks = pod["metadata"].get("annotations") or {}
    if WAITS in marks:
        return Behaviour(waiting="ImagePullBackOff", ready=None)
    if RUNS in marks:
        return Behaviour(run=float(marks[RUNS]))
    return Behaviour()


class Apps:
    """Adds them to the cluster. bad: the nodes that are to be drained.

    later: (seconds, what is to be done then) to make the pods what they are.
    """

    def __init__(self, cluster: Cluster, random: Random, bad: list[str], story: list[str]) -> None:
        self._cluster, self._random, self._bad, self._story = cluster, random, bad, story
        #: Nothing keeps a drain from its end.
        self._gentle = random.random() < 0.65
        self.later: list[tuple[float, Callable[[], object]]] = []

    def add(self) -> None:
        """All of them."""
        random = self._random
        for number in range(random.randint(4, 9)):
            self._deployment(f"web-{number}")
        for number in range(random.choice((0, 2, 4))):
            self._surging(f"only-{number}")
        if random.random() < 0.7:
            tolerations = random.choice(([_ALWAYS], []))
            self._add(objects.daemon_set("kube-system", "agent", tolerations=tolerations))
        kinds = sorted(name for name in dir(self) if name.startswith(("_a_", "_an_")))
        kinds = [kind for kind in kinds if not (self._gentle and kind in _STUCK)]
        for number in range(random.randint(6, 14)):
            kind = random.choice(kinds)
            name = f"{kind.split('_', 2)[2].replace('_', '-')}-{number}"
            getattr(self, kind)(name, random.choice(self._bad))

    # -- whole applications ---------------------------------------------------------------

    def _add(self, raw: Json) -> None:
        self._cluster.add(raw)

    def _budget(self, name: str, app: str, **spec: Any) -> None:
        self._add(objects.budget("default", name, {"app": app}, **spec))
        self._story.append(f"budget {name} of {app}: {spec}")

    def _deployment(self, name: str) -> None:
        random, replicas = self._random, self._random.randint(1, 6)
        more: Json = dict(SYSTEM) if random.random() < 0.25 else {"priority": random.choice((0, 7))}
        if random.random() < 0.15:
            more["volumes"] = [{"name": "scratch", "emptyDir": {}}]
        if random.random() < 0.1 and not self._gentle:
            more["tolerations"] = [_ALWAYS]
        if random.random() < 0.2:
            more["cpu"] = random.choice(("300m", "900m"))
        make = random.choice((objects.deployment, objects.deployment, objects.stateful_set))
        make = random.choice((make, make, objects.replica_set))
        self._add(make("default", name, replicas, **more))
        budget: Json = random.choice(
            [
                {},
                {"maxUnavailable": random.randint(0, 2)},
                {"minAvailable": random.randint(1, replicas)},
                {"minAvailable": replicas},
                {"maxUnavailable": "50%"},
            ]
        )
        if self._gentle:
            budget = {"maxUnavailable": random.randint(1, 2)} if budget else {}
        if budget and random.random() < 0.2:
            budget["unhealthyPodEvictionPolicy"] = "AlwaysAllow"
        self._story.append(f"{make.__name__} {name}: {replicas} replicas, {more}")
        if budget:
            self._budget(name, name, **budget)
            if random.random() < 0.1 and not self._gentle:
                self._budget(f"{name}-too", name, maxUnavailable=1)
        if random.random() < 0.3 and not self._gentle:
            self.later.append((20.0, lambda: self._break(name, random.randint(1, 2))))

    def _break(self, app: str, number: int) -> None:
        """Some of its pods are not ready any more."""
        pods = [pod["metadata"] for pod in self._cluster.store.all("pods", "default")]
        mine = [one["name"] for one in pods if (one.get("labels") or {}).get("app") == app]
        for pod in mine[:number]:
            self._cluster.kubelets.set_ready("default", pod, ready=False)

    def _surging(self, name: str) -> None:
        raw = objects.deployment("default", name, 1)
        if self._random.random() < 0.8:
            raw["metadata"]["annotations"] = {"selfheal.dev/surge": "true"}
        if self._random.random() < 0.2:
            raw["spec"]["strategy"] = {"type": "Recreate"}
        pool = self._cluster.node(self._random.choice(self._bad))["metadata"]["labels"][POOL]
        raw["spec"]["template"]["spec"]["nodeSelector"] = {POOL: pool}
        self._add(raw)
        self._budget(name, name, minAvailable=1)
        self._story.append(f"deployment {name}: one replica, {raw['metadata']}")

    # -- single pods, on a node that is to be drained ---------------------------------------

    def _owned(self, name: str, node: str, kind: str = "Thing", api: str = "", **more: Any) -> Json:
        raw = objects.pod("default", name, nodeName=node, **more)
        api = api or "example.com/v1"
        owner = {"apiVersion": api, "kind": kind, "name": f"of-{name}", "uid": f"uid-of-{name}"}
        raw["metadata"]["ownerReferences"] = [{**owner, "controller": True}]
        self._story.append(f"pod {name} of a {kind} on {node}: {more}")
        return raw

    def _a_plain_pod(self, name: str, node: str) -> None:
        self._add(self._owned(name, node))

    def _a_bare_pod(self, name: str, node: str) -> None:
        self._add(objects.pod("default", name, nodeName=node))

    def _a_kept_pod(self, name: str, node: str) -> None:
        marks = self._random.choice(({"selfheal.dev/evict": "false"}, {SAFE_TO_EVICT: "false"}))
        self._add(self._owned(name, node, annotations=marks))

    def _a_pod_with_a_duration(self, name: str, node: str) -> None:
        wanted = self._random.choice(("60s", "7m", "true"))
        self._add(self._owned(name, node, annotations={"karpenter.sh/do-not-disrupt": wanted}))

    def _a_scratch_pod(self, name: str, node: str) -> None:
        self._add(self._owned(name, node, volumes=[{"name": "s", "emptyDir": {}}]))

    def _a_static_pod(self, name: str, node: str) -> None:
        self._cluster.static_pods.add(node, name)

    def _a_pinned_pod(self, name: str, node: str) -> None:
        self._add(self._owned(name, node, nodeSelector={objects.HOSTNAME: node}))

    def _a_system_pod(self, name: str, node: str) -> None:
        self._add(self._owned(name, node, **SYSTEM))

    def _a_finished_pod(self, name: str, node: str) -> None:
        marks = {RUNS: "5"}
        self._add(self._owned(name, node, annotations=marks, restartPolicy="Never"))

    def _a_pending_pod(self, name: str, node: str) -> None:
        self._add(self._owned(name, node, annotations={WAITS: "yes"}))
        if self._random.random() < 0.5:
            self._budget(name, name, minAvailable=1)

    def _a_terminating_pod(self, name: str, node: str) -> None:
        raw = self._owned(name, node)
        raw["metadata"]["finalizers"] = ["example.com/backup"]
        self._add(raw)
        key = "pods", "default", name

        def delete(there: Json) -> None:
            there["metadata"]["deletionTimestamp"] = there["metadata"]["creationTimestamp"]

        self.later.append((30.0, lambda: self._cluster.store.change(key, delete)))

    def _a_guarded_pod(self, name: str, node: str) -> None:
        self._add(self._owned(name, node))
        self._budget(name, name, minAvailable=1)
        if self._random.random() < 0.3:
            self.later.append((20.0, lambda: self._break(name, 1)))

    def _a_pod_with_two_budgets(self, name: str, node: str) -> None:
        self._add(self._owned(name, node))
        for number in ("1", "2"):
            self._budget(f"{name}-{number}", name, minAvailable=0)

    def _a_pod_with_a_local_volume(self, name: str, node: str) -> None:
        self._add(objects.volume(f"volume-{name}", node))
        self._add(objects.claim("default", f"claim-{name}", f"volume-{name}"))
        self._add(self._owned(name, node, volumes=objects.claimed(f"claim-{name}")))

    def _a_pod_with_a_claim(self, name: str, node: str) -> None:
        self._add(objects.volume(f"volume-{name}", "a", objects.ZONE))
        self._add(objects.claim("default", f"claim-{name}", f"volume-{name}"))
        zone = self._cluster.node(node)["metadata"]["labels"][objects.ZONE]
        if zone == "a":
            self._add(self._owned(name, node, volumes=objects.claimed(f"claim-{name}")))

    def _a_job_pod(self, name: str, _: str) -> None:
        marks = {RUNS: self._random.choice(("200", "9000"))}
        raw = objects.job("default", name, completions=4, annotations=marks)
        raw["spec"]["parallelism"] = 4
        self._add(raw)
        self._story.append(f"job {name}: {marks}")

    def _a_pod_that_is_to_complete(self, name: str, node: str) -> None:
        marks = {SAFE_TO_EVICT: "on-completion", RUNS: self._random.choice(("200", "9000"))}
        self._add(self._owned(name, node, annotations=marks, restartPolicy="Never"))

    def _a_pod_of_another_daemon_set(self, name: str, node: str) -> None:
        self._add(self._owned(name, node, "DaemonSet", "apps.kruise.io/v1alpha1"))

    def _an_orphan_of_a_daemon_set(self, name: str, node: str) -> None:
        self._add(self._owned(name, node, "DaemonSet", "apps/v1"))

    def _a_pod_that_tolerates_the_taint(self, name: str, node: str) -> None:
        key = self._random.choice(("example.com/cordoned", "node.kubernetes.io/unschedulable"))
        self._add(self._owned(name, node, tolerations=[{"key": key, "operator": "Exists"}]))
