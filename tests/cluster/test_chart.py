"""A release's life on real nodes, beside the demo's: with both Helms, and messages in flight."""

import itertools
import json
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ci import images, ollama, parts
from ci.cluster import Cluster
from ci.demo import pods
from ci.demo.kube import CommandFailed, Kube, Object
from ci.demo.mailbox import Mailbox
from ci.demo.world import World
from ci.images.catalog import OLLAMA_MODELS

pytestmark = pytest.mark.cluster

CHART = Path(__file__).parents[2] / "chart"
NAMESPACE = RELEASE = "feelings"
PREFIX = "feelings-selfheal"
only_long = pytest.mark.skipif(
    os.environ.get("SELFHEAL_LONG") != "1", reason="takes a minute: with SELFHEAL_LONG=1"
)
_PATIENCE = 240.0
#: A real model takes seconds for a text, on cores that the whole cluster shares.
_LONG_PATIENCE = 900.0
#: All that the drains' release has beside the defaults and the images: what there can be only one
#: of in a cluster, the demo's release has.
SINGLETONS = {"remediator": {"enabled": False}, "nodeProblemDetector": {"enabled": False}}
#: What differs else: the embedded model is too fast to find a message in flight, and two cores are
#: shared with everything else.
VALUES = {
    **SINGLETONS,
    "faults": {"modelDelay": 0.5},
    "worker": {"concurrency": 4, "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}}},
    "rabbitmq": {"resources": {"requests": {"cpu": "50m", "memory": "256Mi"}}},
    # Two from the start, so that nothing comes or goes while restarts are counted.
    "autoscaling": {"minReplicas": 2, "maxReplicas": 2},
}


@dataclass
class Lab:
    """One release of the chart, watched."""

    kube: Kube
    old_kube: Kube
    world: World
    mailbox: Mailbox
    values: Path
    published: list[str] = field(default_factory=list)

    def apply(self, command: str, *arguments: str, chart: Path = CHART, old: bool = False) -> None:
        """`helm install` or `upgrade` with these values, by Helm 4 or by Helm 3."""
        helm = self.old_kube if old else self.kube
        release = [RELEASE, str(chart), "--namespace", NAMESPACE, "--values", str(self.values)]
        helm.helm(command, *release, "--timeout", "4m", *arguments)

    def take_defaults(self) -> None:
        """The chart's default values from here on, but what there can be only one of."""
        self.values.write_text(yaml.safe_dump(_with_images(SINGLETONS)))
        self.apply("upgrade", "--wait")

    def pods(self, component: str = "") -> dict[str, Object]:
        """The pods of the release that are not on their way out, by uid, but those of Jobs."""
        return {
            pod["metadata"]["uid"]: pod
            for pod in self.world["pods"].values()
            if pod["metadata"]["labels"].get("app.kubernetes.io/instance") == RELEASE
            and pod["metadata"]["labels"]["app.kubernetes.io/component"] != "topology"
            and component in ("", pod["metadata"]["labels"]["app.kubernetes.io/component"])
            and not pods.is_leaving(pod)
        }

    def there(self) -> set[str]:
        """The uids of all pods of the namespace, those on their way out as well."""
        return {pod["metadata"]["uid"] for pod in self.world["pods"].values()}

    def ready(self, component: str) -> set[str]:
        """The uids of those that are ready."""
        return {uid for uid, pod in self.pods(component).items() if pods.is_ready(pod)}

    def restarts(self) -> dict[str, int]:
        """Restarts of each pod's containers, by uid."""
        return {uid: pods.restarts(pod) for uid, pod in self.pods().items()}

    def publish(self, wave: str, count: int) -> None:
        """Publishes texts with ids `wave-1` … and waits until some are answered."""
        lines = [json.dumps({"id": f"{wave}-{n}", "text": "I love it"}) for n in range(count)]
        self.mailbox.publish(lines)
        self.published += [f"{wave}-{n}" for n in range(count)]
        self.until(f"first answers of {wave}", lambda: self.mailbox.answered(f"{wave}-"))

    @contextmanager
    def publishing(self, wave: str) -> Iterator[None]:
        """Publishes `wave-all-1` … all the time; a batch that the broker did not confirm again."""
        stopped = threading.Event()

        def publish() -> None:
            for batch in itertools.count():
                ids = [f"{wave}-all-{50 * batch + n}" for n in range(50)]
                self.published += ids
                lines = [json.dumps({"id": one, "text": "I love it"}) for one in ids]
                deadline = time.monotonic() + _PATIENCE
                while True:
                    try:
                        self.mailbox.publish(lines)
                        break
                    except CommandFailed:  # the broker is moving
                        if time.monotonic() > deadline:
                            raise
                        stopped.wait(1.0)
                if stopped.is_set():
                    return

        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(publish)
            try:
                yield
            finally:
                stopped.set()
            done.result()

    def all_answered(self, patience: float = _PATIENCE) -> None:
        """Waits until everything that was published is answered; nothing is dead-lettered."""
        ids = set(self.published)
        self.world.until("every answer", lambda: ids <= self.mailbox.answered("") or None, patience)
        assert self.mailbox.answered("") == ids
        assert self.mailbox.dead_letters() == []

    def until(self, what: str, condition) -> None:
        self.world.until(what, lambda: condition() or None, _PATIENCE)


@pytest.fixture(scope="module")
def lab(cluster, tmp_path_factory) -> Iterator[Lab]:
    """The release, installed by Helm 3 with --wait where Pod Security `restricted` is enforced."""
    programs = parts.ensure(["kubectl", "helm", "helm3"])
    kube, old = (
        Kube(str(programs["kubectl"]), str(programs[helm]), cluster.kubeconfig)
        for helm in ("helm", "helm3")
    )
    values = tmp_path_factory.mktemp("chart") / "values.yaml"
    values.write_text(yaml.safe_dump(_with_images(VALUES)))
    _make_namespace(kube)
    selections = {"pods": ["pods", "-n", NAMESPACE], "nodes": ["nodes"]}
    with ExitStack() as stack:
        stack.callback(_clear, kube, cluster)
        world = stack.enter_context(World(kube, selections))
        mailbox = Mailbox(kube, NAMESPACE, PREFIX, world.changed)
        lab = Lab(kube, old, world, mailbox, values)
        lab.apply("install", "--wait", old=True)
        stack.enter_context(mailbox.reading())
        lab.until("two workers", lambda: len(lab.ready("worker")) == 2)
        yield lab


def _with_images(values: dict[str, Any]) -> dict[str, Any]:
    made = images.ensure(["worker", "rabbitmq"])
    told = {name: image.ref.rpartition(":") for name, image in made.items()}
    ours = {
        name: {"image": {"repository": repository, "tag": tag}}
        for name, (repository, _, tag) in told.items()
    }
    return {key: {**values.get(key, {}), **ours.get(key, {})} for key in {*values, *ours}}


def _make_namespace(kube: Kube) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    kube.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", **namespace}))


def _clear(kube: Kube, cluster: Cluster) -> None:
    for node in cluster.nodes:
        kube.kubectl("uncordon", node)
    kube.helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found")
    kube.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")
    cluster.reset_volumes()
    # The drains moved everything, and other modules continue with the demo's release.
    for namespace in ("kube-system", "keda", "selfheal"):
        there = ["deployments", "--all", "--namespace", namespace]
        kube.kubectl("wait", "--for=condition=Available", *there, "--timeout=180s")
    broker = ["statefulset/selfheal-rabbitmq", "--namespace", "selfheal"]
    kube.kubectl("rollout", "status", *broker, "--timeout=180s")


def test_helm_3_installs_with_wait_where_restricted_is_enforced(lab):
    assert len(lab.ready("rabbitmq")) == 1
    assert len(lab.ready("worker")) == 2
    refused = [
        e for e in lab.kube.items("events", "-n", NAMESPACE) if e["reason"] == "FailedCreate"
    ]
    assert refused == []


@pytest.mark.parametrize(("version", "old"), [("8.8.8", True), ("9.9.9", False)])
def test_a_new_chart_version_restarts_no_pod(lab, tmp_path, version, old):
    """By Helm 3, and then by Helm 4 on what Helm 3 installed."""
    before = lab.restarts()
    bumped = tmp_path / "chart"
    shutil.copytree(CHART, bumped)
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (bumped / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": version}))
    lab.apply("upgrade", "--wait", chart=bumped, old=old)
    assert lab.restarts() == before
    [worker] = lab.kube.items("deployments", "-n", NAMESPACE)
    assert worker["metadata"]["labels"]["helm.sh/chart"] == f"selfheal-{version}"
    assert worker["spec"]["replicas"] == 2


def test_the_old_workers_continue_until_the_new_model_is_there(lab):
    """A swap to a server that is not there: nothing stops, and a rollback is all it takes."""
    before = lab.restarts()
    workers = lab.ready("worker")
    elsewhere = ["model.provider=ollama", "model.name=m", "model.baseUrl=http://nowhere:11434"]
    lab.apply("upgrade", *(word for one in elsewhere for word in ("--set", one)))
    lab.until("a new worker", lambda: lab.pods("worker").keys() - workers)
    lab.publish("swap", 60)
    lab.all_answered()
    assert workers < lab.pods("worker").keys()
    assert lab.ready("worker") <= workers

    lab.kube.helm("rollback", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "4m")
    lab.until("the new worker is gone", lambda: lab.pods("worker").keys() == workers)
    assert lab.restarts() == before


def test_a_swapped_model_replaces_the_workers_only_and_loses_nothing(lab):
    before, workers = lab.pods(), lab.ready("worker")
    lab.publish("model", 80)
    lab.apply("upgrade", "--wait", "--set", "model.deadlineSeconds=45")
    lab.all_answered()
    lab.until("the new workers", lambda: not lab.pods("worker").keys() & workers)
    assert before.keys() - lab.pods().keys() == workers
    assert set(lab.restarts().values()) == {0}


@only_long
def test_helm_3_rolls_back_what_helm_4_upgraded(lab):
    workers = lab.ready("worker")
    lab.publish("back", 60)
    lab.old_kube.helm("rollback", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "4m")
    lab.all_answered()
    lab.until("other workers", lambda: not lab.pods("worker").keys() & workers)
    assert set(lab.restarts().values()) == {0}


@only_long
def test_a_real_models_server_and_the_embedded_model_swapped_under_load(lab, cluster, capsys):
    """By `--set model.active` alone, there and back: no other pod is touched, and each text has its
    answer. The server is there before anything is asked of it."""
    server = _ollama(cluster)
    lab.apply("upgrade", "--wait", *server)
    rest = lab.pods().keys() - lab.pods("worker").keys()
    assert len(rest) == 2, "the broker and the server"
    swap = ["--set", "model.active=served"]
    for wave, count, model in (("to-ollama", 120, swap), ("to-builtin", 24, [])):
        workers = lab.ready("worker")
        lab.publish(wave, count)
        lab.apply("upgrade", "--wait", *server, *model)
        # Not even on their way out: what comes now is the new ones'.
        lab.until("the old workers are gone", lambda old=workers: not lab.there() & old)
        # What is left of the wave, and one that only the new model can answer.
        last = [f"{wave}-after-{n}" for n in range(2)]
        lab.mailbox.publish([json.dumps({"id": name, "text": "I love it"}) for name in last])
        lab.published += last
        lab.all_answered(_LONG_PATIENCE)
        assert lab.pods().keys() - lab.pods("worker").keys() == rest
        said = _answered_by(lab, wave)
        assert {said[name] for name in last} == {"ollama" if model else "builtin"}
        with capsys.disabled():
            told = Counter(said.values())
            twice = sum(str(r["id"]).startswith(wave) for r in lab.mailbox.results) - len(said)
            print(f"\n{wave}: {dict(told)}, lost 0, answered twice {twice}")  # noqa: T201
    lab.apply("upgrade", "--wait")
    assert set(lab.restarts().values()) == {0}


def _answered_by(lab: Lab, prefix: str) -> dict[str, str]:
    """The provider that answered each text."""
    with lab.mailbox.changed:
        return {
            str(r["id"]): r["model"]["provider"]
            for r in lab.mailbox.results
            if str(r["id"]).startswith(prefix)
        }


def _ollama(cluster: Cluster) -> list[str]:
    """What adds a real Ollama to the release, and gives it time; the model is in the image."""
    made = images.ensure(["ollama"])["ollama"]
    cluster.load(made.archive)
    repository, _, tag = made.ref.rpartition(":")
    values = {
        "models.served.provider": "ollama",
        "models.served.name": ollama.MODEL,
        "ollama.enabled": "true",
        "ollama.image.repository": repository,
        "ollama.image.tag": tag,
        "ollama.models": f"{{{ollama.MODEL}}}",
        "ollama.modelsInImage": OLLAMA_MODELS,
        "ollama.autoscaling.enabled": "false",
        "ollama.resources.requests.cpu": "200m",
        "ollama.resources.requests.memory": "512Mi",
        "model.contextTokens": "2048",
        "model.deadlineSeconds": "90",
        "worker.concurrency": "2",
        "faults.modelDelay": "1",
    }
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


def test_a_second_remediator_is_refused_and_a_second_pipeline_is_not(lab):
    """By both Helms: the demo's release has the remediator and the detector."""
    alone = ["--namespace", "second", "--create-namespace"]
    for helm in (lab.kube, lab.old_kube):
        with pytest.raises(CommandFailed) as refused:
            helm.helm("install", "second", str(CHART), *alone)
        for what in ("remediator", "node-problem-detector"):
            assert f"the release selfheal/selfheal already runs the {what} of this cluster" in str(
                refused.value
            )
        assert "set remediator.enabled=false" in str(refused.value)
    beside = [
        *("--values", str(CHART / "ci" / "worker-only-values.yaml")),
        *("--set", f"broker.host={PREFIX}-rabbitmq,broker.existingSecret={PREFIX}-rabbitmq"),
        *("--set", f"broker.managementUrl=http://{PREFIX}-rabbitmq.{NAMESPACE}.svc:15672/"),
    ]
    release = ["tickets", str(CHART), "--namespace", NAMESPACE, "--values", str(lab.values)]
    lab.kube.helm("install", *release, *beside, "--wait", "--timeout", "4m")
    lab.kube.helm("uninstall", "tickets", "--namespace", NAMESPACE, "--wait=legacy")
    assert len(lab.pods("worker")) == 2


def test_helm_test_of_the_demos_release_passes(lab):
    """One text goes through, and the remediator says who leads."""
    said = lab.kube.helm("test", "selfheal", "--namespace", "selfheal", "--timeout", "4m")
    for pod in ("selfheal-test-pipeline", "selfheal-test-remediator"):
        assert pod in said
    assert said.count("Succeeded") >= 2


@only_long
def test_the_mode_of_autoscaling_changes_on_a_live_release(lab):
    """KEDA refuses workers that another autoscaler has: the chart says how to go."""
    lab.apply("upgrade", "--wait", "--set", "autoscaling.mode=hpa")
    scaled = [f"scaledobject/{PREFIX}-worker", "-n", NAMESPACE, "--timeout=180s"]
    lab.kube.kubectl("wait", "--for=delete", *scaled)
    with pytest.raises(CommandFailed, match=r"upgrade once with autoscaling\.mode=none"):
        lab.apply("upgrade")
    number = ["--set", "autoscaling.mode=none", "--set", "worker.replicas=2"]
    lab.apply("upgrade", "--wait", *number)
    lab.apply("upgrade", "--wait")
    lab.kube.kubectl("wait", "--for=condition=Ready", *scaled)
    lab.until("two workers", lambda: len(lab.ready("worker")) == 2)


@pytest.mark.parametrize("node", ["node-1", "node-2"])
def test_the_drain_of_a_node_with_default_values_loses_no_message(lab, node, capsys):
    """The broker and its volume move as well, whichever of the two nodes it is on; messages are
    published before, during and after it."""
    lab.take_defaults()
    before = len(lab.published)
    lab.publish(f"drain-{node}", 3000)
    with lab.publishing(f"drain-{node}"):
        evicting = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=200s"]
        lab.kube.kubectl("drain", node, *evicting)
    lab.until("it is seen to be empty", lambda: not pods.to_move(lab.pods().values(), node))
    lab.kube.kubectl("uncordon", node)
    lab.all_answered()
    with capsys.disabled():
        sys.stdout.write(f"\ndrain of {node}: {len(lab.published) - before} published, lost 0\n")


def test_on_full_nodes_the_workers_make_room_for_their_broker(lab):
    """One that asks for as much as the broker finds no room any more, so the broker finds none."""
    lab.take_defaults()
    many = ["autoscaling.mode=none", "worker.replicas=10", "worker.resources.requests.cpu=200m"]
    lab.apply("upgrade", *(word for one in many for word in ("--set", one)))
    lab.until("full nodes", lambda: any(map(_finds_no_room, lab.pods("worker").values())))
    [(old, broker)] = lab.pods("rabbitmq").items()
    node = broker["spec"]["nodeName"]
    lab.publish("full", 3000)
    with lab.publishing("full"):
        lab.kube.kubectl("cordon", node)
        lab.kube.kubectl("delete", "pod", broker["metadata"]["name"], "-n", NAMESPACE)
        lab.until("the broker is elsewhere", lambda: lab.ready("rabbitmq") - {old})
    [broker] = lab.pods("rabbitmq").values()
    assert broker["spec"]["nodeName"] != node
    lab.kube.kubectl("uncordon", node)
    lab.all_answered()


def _finds_no_room(pod: Object) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(one.get("reason") == "Unschedulable" for one in conditions)


def test_an_uninstall_leaves_the_volume_and_nothing_else(lab):
    claim = f"data-{PREFIX}-rabbitmq-0"
    lab.kube.helm(
        "uninstall", RELEASE, "--namespace", NAMESPACE, "--wait=legacy", "--timeout", "4m"
    )
    kinds = (
        "deployments,statefulsets,jobs,services,secrets,configmaps,serviceaccounts,"
        "poddisruptionbudgets,persistentvolumeclaims,scaledobjects,triggerauthentications,"
        "healingpolicies,horizontalpodautoscalers,roles,rolebindings,networkpolicies"
    )
    left = {
        f"{one['kind']}/{one['metadata']['name']}" for one in lab.kube.items(kinds, "-n", NAMESPACE)
    }
    assert left - {"ConfigMap/kube-root-ca.crt", "ServiceAccount/default"} == {
        f"PersistentVolumeClaim/{claim}"
    }
    assert lab.kube.get("crd", "healingpolicies.selfheal.dev")
    for kind in ("clusterroles", "clusterrolebindings", "priorityclasses"):
        assert [o for o in lab.kube.items(kind) if RELEASE in o["metadata"]["name"]] == []
