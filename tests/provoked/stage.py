"""The release, its Prometheus and Alertmanager, and the hands that break things."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from alerts.rules import ALERTS
from ci.cluster import Cluster, ClusterError
from ci.demo import seen
from ci.demo import site as sites
from ci.demo.kube import CommandFailed, Kube
from ci.demo.mailbox import Mailbox
from tests.provoked.shortened import rules

HERE = Path(__file__).parent
MODEL_SERVER = HERE.parent / "support" / "ollama_in_pod.py"
NAMESPACE = RELEASE = "selfheal"
#: Far more than anything takes on an idle machine: many a machine is not.
PATIENCE = 420.0


@dataclass
class Watcher:
    """What fires in Alertmanager, read each second; `fired`: what ever did, `resolved`: what
    did and then did not, `fresh`: what did since the scenario began."""

    cluster: Cluster
    now: set[str] = field(default_factory=set)
    fired: set[str] = field(default_factory=set)
    fresh: set[str] = field(default_factory=set)
    resolved: set[str] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _stopped: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Watcher]:
        """Reads while the context lasts."""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            thread.join()

    def until_firing(self, names: set[str]) -> None:
        """Returns when all of `names` have fired since the scenario began."""
        with self._changed:
            if not self._changed.wait_for(lambda: names <= self.fresh, PATIENCE):
                missing = sorted(names - self.fresh)
                raise AssertionError(f"did not fire: {missing}; fires: {sorted(self.now)}")

    def until_quiet(self, names: set[str], seconds: float = PATIENCE) -> None:
        """Returns when none of `names` fires."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self.now & names, seconds):
                raise AssertionError(f"did not resolve: {sorted(self.now & names)}")

    def _look(self) -> None:
        prometheus = self.cluster.prometheus
        while not self._stopped.wait(1.0):
            try:
                now = {alert["alertname"] for alert in prometheus.firing()}
            except ClusterError:
                continue  # a machine with more to do than it can: it answers the next time
            with self._changed:
                self.resolved |= self.now - now
                self.now = now
                self.fired |= now
                self.fresh |= now
                self._changed.notify_all()


@dataclass
class Stage:
    """One release on a cluster of its own."""

    cluster: Cluster
    kube: Kube
    arguments: list[str]
    watcher: Watcher
    mailbox: Mailbox
    saved: dict[str, dict[str, Any]] = field(default_factory=dict)

    def kubectl(self, *arguments: str, input: str | None = None) -> str:
        """In the release's namespace."""
        return self.kube.kubectl("-n", NAMESPACE, *arguments, input=input)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Makes or changes objects."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", input=json.dumps(listed))

    def pod(self, component: str, node: str = "") -> str:
        """The name of a running pod of a component, of a node if one is said."""
        where = [f"--field-selector=spec.nodeName={node}"] if node else []
        selector = f"app.kubernetes.io/component={component}"
        found = self.kube.items("pods", "-A", "-l", selector, *where)
        ready = [p for p in found if "deletionTimestamp" not in p["metadata"]]
        assert ready, f"no pod of {component} {node}"
        return str(ready[0]["metadata"]["name"])

    def worker(self, script: str) -> None:
        """Runs a shell script in a worker, as soon as one runs."""
        command = ["exec", "deploy/selfheal-worker", "-c", "worker", "--", "sh", "-c", script]
        patiently(lambda: self.kubectl(*command))

    def remediator(self, *arguments: str) -> None:
        """Runs a command of the remediator in its pod."""
        command = ["exec", "deploy/selfheal-remediator", "--", "selfheal-remediator"]
        patiently(lambda: self.kubectl(*command, *arguments))

    def broker(self, *arguments: str) -> None:
        """Runs rabbitmqctl."""
        command = ["exec", "selfheal-rabbitmq-0", "--", "rabbitmqctl", *arguments]
        patiently(lambda: self.kubectl(*command))

    def publish(self, *texts: str) -> None:
        """One message each; a port-forward may break, and then they are sent again."""
        lines = [json.dumps({"text": text}) for text in texts]
        patiently(lambda: self.mailbox.publish(lines))

    def fault(self, node: str, file: str = "demo") -> None:
        """A condition comes true on the node: DemoFault (`demo`) or StubbornFault (`stubborn`)."""
        self._detector(node, f"touch /faults/{file}")

    def heal(self, *nodes: str) -> None:
        """Both conditions are False again, and the nodes are uncordoned."""
        for node in nodes:
            self._detector(node, "rm -f /faults/demo /faults/stubborn")
        for node in nodes:
            self.until_cordoned(node, "")

    def until_cordoned(self, node: str, wanted: str = "true") -> None:
        """Returns when the node is unschedulable; with an empty `wanted`, when it is not."""

        def look() -> None:
            path = "jsonpath={.spec.unschedulable}"
            assert self.kube.kubectl("get", "node", node, "-o", path) == wanted, node

        patiently(look)

    def until_old(self, node: str, seconds: float) -> None:
        """Returns when DemoFault has been true on the node for so long."""

        def look() -> None:
            conditions = self.kube.get("node", node)["status"]["conditions"]
            [fault] = [one for one in conditions if one["type"] == "DemoFault"]
            since = datetime.fromisoformat(fault["lastTransitionTime"])
            assert fault["status"] == "True", node
            assert datetime.now(UTC) - since > timedelta(seconds=seconds), node

        patiently(look)

    def _detector(self, node: str, script: str) -> None:
        def run() -> None:
            pod = self.pod("node-problem-detector", node)
            space = "selfheal-node-problem-detector"
            self.kube.kubectl("-n", space, "exec", pod, "--", "sh", "-c", script)

        patiently(run)

    def until_rolled_out(self, what: str) -> None:
        """Returns when all its pods are there and ready."""
        self.kubectl("rollout", "status", what, f"--timeout={PATIENCE:.0f}s")

    def scale(self, what: str, replicas: int) -> None:
        """Scales, and waits until so many are ready; at 0, until the last pod is gone."""
        self.kubectl("scale", what, f"--replicas={replicas}")
        if replicas:
            self.until_rolled_out(what)
            return
        labels = self.kube.get(what, "-n", NAMESPACE)["spec"]["selector"]["matchLabels"]
        chosen = ",".join(f"{key}={value}" for key, value in labels.items())
        timeout = f"--timeout={PATIENCE:.0f}s"
        self.kubectl("wait", "pod", "-l", chosen, "--for=delete", timeout)

    def change(self, what: str, how: Callable[[dict[str, Any]], object], space: str) -> None:
        """Changes an object, and keeps it as it was for `restore`."""
        found = self.kube.get(what, "-n", space)
        for key in ("resourceVersion", "managedFields"):
            found["metadata"].pop(key, None)
        found.pop("status", None)
        self.saved[what] = deepcopy(found)
        how(found)
        self.kube.kubectl("replace", "-n", space, "-f", "-", input=json.dumps(found))

    def restore(self, what: str) -> None:
        """As it was before `change`."""
        text = json.dumps(self.saved.pop(what))
        self.kube.kubectl("replace", "-f", "-", input=text)

    def until_forbidden(self, verb: str, resource: str) -> None:
        """Returns when the API server has taken in that the remediator may not do it."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{NAMESPACE}:{RELEASE}-remediator",
                "resourceAttributes": {"verb": verb, "resource": resource},
            },
        }

        def look() -> None:
            command = ["create", "-f", "-", "-o", "jsonpath={.status.allowed}"]
            assert self.kube.kubectl(*command, input=json.dumps(review)) != "true", verb

        patiently(look)

    def load_rules(self, *more: str, release: str = RELEASE, only: str = "") -> int:
        """The chart's alerts, shortened, with values `more`; or `only` one of them."""
        chosen = rules()
        if only:
            others = {alert.name: {"enabled": False} for alert in ALERTS}
            chosen = {**others, only: chosen[only]}
        values = json.dumps(chosen)
        arguments = ["--namespace", NAMESPACE, *self.arguments, *more]
        return seen.load_rules(
            self.cluster.prometheus,
            self.kube,
            release,
            str(sites.CHART),
            [*arguments, "--set-json", f"alerts.rules={values}"],
        )


def patiently(action: Callable[[], object]) -> None:
    """Does it again until it succeeds: things come and go in these tests."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            action()
        except (CommandFailed, ClusterError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


def model_server(image: str) -> list[dict[str, Any]]:
    """A Deployment and Service `model` that runs model.py in the worker's image."""
    labels = {"app": "model"}
    container = {
        "name": "model",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "/srv/model.py"],
        "readinessProbe": {"tcpSocket": {"port": 11434}, "periodSeconds": 1},
        "volumeMounts": [{"name": "source", "mountPath": "/srv"}],
    }
    spec = {
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
        "volumes": [{"name": "source", "configMap": {"name": "model"}}],
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "model"},
            "data": {"model.py": MODEL_SERVER.read_text()},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "model"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "model"},
            "spec": {"selector": labels, "ports": [{"port": 11434}]},
        },
    ]


def values(image: str) -> list[str]:
    """The arguments of helm with this folder's values; `image` runs the step that repairs nothing.

    The values must be readable as YAML.
    """
    yaml.safe_load((HERE / "values.yaml").read_text())
    container = "remediator.config.rules[1].then[0].job.template.spec.containers[0]"
    return ["--values", str(HERE / "values.yaml"), "--set-string", f"{container}.image={image}"]
