"""A stage for one test on a real control plane: its own nodes, pods, budgets, remediator.

Nodes are KWOK's (ready, with heartbeats; pods on them run at once). All of a test's objects
carry its name, so that tests do not see each other's.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import urllib3
import yaml

from ci.cluster.kwok import node as kwok_node
from selfheal_remediator.config import ApiBudget
from selfheal_remediator.kube.access import load_configuration
from selfheal_remediator.kube.client import KubernetesApi
from tests.control_plane.launcher import Launcher
from tests.support.waiting import until

Json = dict[str, Any]
STATE = "selfheal.dev/state"
PATIENCE = 60.0


def moment(ago: float = 0.0) -> str:
    """A time for the API, so many seconds ago."""
    return datetime.fromtimestamp(time.time() - ago, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Remediator:
    """A running `selfheal-remediator run`."""

    def __init__(
        self,
        launcher: Launcher,
        config: Path,
        kubeconfig: Path,
        namespace: str,
        log: Path,
        **env: str,
    ) -> None:
        self.log_path = log
        variables = {
            **os.environ,
            "CONFIG_FILE": str(config),
            "POD_NAMESPACE": namespace,
            "HTTP_PORT": "0",
            "LOG_FORMAT": "text",
            **env,
        }
        log.touch()
        # Not by KUBECONFIG, which the library reads when it is imported.
        arguments = ["run", "--kubeconfig", str(kubeconfig)]
        self.process = launcher.start(arguments, variables, log)

    @property
    def log(self) -> str:
        """Everything it said so far."""
        return self.log_path.read_text(errors="replace")

    def says(self, text: str, patience: float = PATIENCE) -> None:
        """Wait until the log holds the text."""

        def look() -> bool:
            ended = self.process.poll() is not None  # first: it may say so, and end
            if text in self.log:
                return True
            assert not ended, f"it ended:\n{self.log}"
            return False

        until(f"the log says {text!r}:\n{self.log}", look, patience)

    def metric(self, line: str) -> float:
        """The value of a metric, named with its labels; 0 when it is not there."""
        port = self.log.partition("http port ")[2].split()[0]
        answer = urllib3.request("GET", f"http://127.0.0.1:{port}/metrics")
        for text in answer.data.decode().splitlines():
            name, _, value = text.rpartition(" ")
            if name == f"selfheal_remediator_{line}":
                return float(value)
        return 0.0

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        if self.process.poll() is None:
            self.process.terminate()
        return self._end()

    def kill(self) -> None:
        """SIGKILL; nothing when it has ended already."""
        self.process.send_signal(signal.SIGKILL)
        self._end()

    def _end(self) -> int:
        return self.process.wait(60)


class Site:
    """What one test needs of the cluster."""

    def __init__(
        self, launcher: Launcher, kubeconfig: Path, account: Path, name: str, folder: Path
    ) -> None:
        self._launcher = launcher
        self.kubeconfig, self.account, self.name, self.folder = kubeconfig, account, name, folder
        access, _ = load_configuration(kubeconfig)
        self.api = KubernetesApi(access, name, ApiBudget(qps=1000, burst=1000))
        self._started: list[Remediator] = []
        self._nodes: list[str] = []
        self.create("/api/v1/namespaces", {"kind": "Namespace", "metadata": {"name": name}})

    # -- the API ------------------------------------------------------------------------

    def create(self, path: str, body: Json) -> Json:
        """POST an object."""
        answer = self.api.send("POST", path, body=body)
        assert answer.ok, answer.failure()
        return answer.json()

    def patch(self, path: str, body: Json, kind: str = "merge-patch") -> Json:
        """PATCH an object."""
        answer = self.api.send("PATCH", path, body=body, content_type=f"application/{kind}+json")
        assert answer.ok, answer.failure()
        return answer.json()

    def delete(self, path: str, **options: Any) -> None:
        """DELETE an object, at once."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", **options}
        answer = self.api.send("DELETE", path, body=body)
        assert answer.ok or answer.status == 404, answer.failure()

    # -- nodes --------------------------------------------------------------------------

    def node(self, suffix: str, **labels: str) -> str:
        """A ready node of this test; returns its name."""
        name = f"{self.name}-{suffix}"
        body = kwok_node(name)
        body["spec"] = {}
        body["metadata"]["labels"] |= {"test": self.name, **labels}
        self.create("/api/v1/nodes", body)
        self._nodes.append(name)
        until(f"node {name} ready", lambda: self.ready(name))
        return name

    def nodes(self, count: int) -> list[str]:
        """So many nodes."""
        return [self.node(str(number)) for number in range(count)]

    def get_node(self, name: str) -> Json:
        """The node as it is."""
        return self.api.get(f"/api/v1/nodes/{name}")

    def ready(self, name: str) -> bool:
        """Whether the node is ready and the node controller has admitted it."""
        node = self.get_node(name)
        conditions = {c["type"]: c["status"] for c in node["status"].get("conditions", ())}
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")

    def cordoned(self, name: str) -> bool:
        """spec.unschedulable."""
        return bool(self.get_node(name)["spec"].get("unschedulable"))

    def state(self, name: str) -> Json:
        """Our annotation, {} when there is none."""
        text = self.get_node(name)["metadata"]["annotations"].get(STATE)
        return json.loads(text) if text else {}

    def phase(self, name: str) -> str:
        """The annotation's phase."""
        return str(self.state(name).get("phase", ""))

    def condition(
        self,
        node: str,
        status: str,
        kind: str = "TestFault",
        heartbeat_age: float = 0.0,
        **more: str,
    ) -> None:
        """Write a condition as node-problem-detector would."""
        entry = {
            "type": kind,
            "status": status,
            "reason": "Injected",
            "message": "by a test",
            "lastTransitionTime": moment(),
            "lastHeartbeatTime": moment(heartbeat_age),
            **more,
        }
        body = {"status": {"conditions": [entry]}}
        self.patch(f"/api/v1/nodes/{node}/status", body, "strategic-merge-patch")

    def uncordon(self, node: str) -> None:
        """As `kubectl uncordon` does."""
        self.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": None}})

    def cordon(self, node: str) -> None:
        """As `kubectl cordon` does."""
        self.patch(f"/api/v1/nodes/{node}", {"spec": {"unschedulable": True}})

    def events(self, node: str) -> list[str]:
        """Reasons of our Events on the node, in order of time."""
        query = {"fieldSelector": f"involvedObject.name={node},involvedObject.kind=Node"}
        items = self.api.get("/api/v1/namespaces/default/events", query)["items"]
        ours = [e for e in items if e.get("reportingComponent") == "selfheal-remediator"]
        return [event["reason"] for event in sorted(ours, key=lambda e: e["lastTimestamp"])]

    def event_messages(self, node: str, reason: str) -> list[str]:
        """Messages of the Events with this reason."""
        query = {"fieldSelector": f"involvedObject.name={node},reason={reason}"}
        items = self.api.get("/api/v1/namespaces/default/events", query)["items"]
        return [event["message"] for event in items]

    def allow_lease(self, name: str) -> None:
        """The chart's Role is for one Lease; allow the account another one."""
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.name}/roles"
        role = f"{path}/{self.name}-remediator"
        rules = self.api.get(role)["rules"]
        for rule in rules:
            if "resourceNames" in rule:
                rule["resourceNames"].append(name)
        self.patch(role, {"rules": rules})

    def metric(self, process: Remediator, line: str) -> float:
        """The value of a metric, named with its labels; 0 when it is not there."""
        return process.metric(line)

    def annotate_lease(self, key: str, value: str) -> None:
        """As `kubectl annotate lease` does."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{self.name}/leases/remediator"
        self.patch(path, {"metadata": {"annotations": {key: value}}})

    # -- pods ---------------------------------------------------------------------------

    def deployment(self, name: str, replicas: int, **pod_spec: Any) -> None:
        """A Deployment on this test's nodes, up."""
        body = {
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": name}},
                "template": self._template(name, pod_spec),
            },
        }
        path = f"/apis/apps/v1/namespaces/{self.name}/deployments"
        self.create(path, body)
        until(f"{replicas} replicas of {name}", lambda: self.available(name) == replicas)

    def daemon_set(self, name: str) -> None:
        """A DaemonSet on this test's nodes."""
        body = {
            "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": self._template(name, {}),
            },
        }
        self.create(f"/apis/apps/v1/namespaces/{self.name}/daemonsets", body)
        until(f"pods of {name}", lambda: self.pods(app=name))

    def pod(self, name: str, node: str, **spec: Any) -> Json:
        """A bare pod, running on the node."""
        more = spec.pop("metadata", {})
        metadata = {"name": name, "annotations": spec.pop("annotations", {}), **more}
        body = {"metadata": metadata, "spec": {**self._pod_spec(spec), "nodeName": node}}
        made = self.create(f"/api/v1/namespaces/{self.name}/pods", body)
        until(f"pod {name} running", lambda: self.phase_of(name) == "Running")
        return made

    def _template(self, app: str, spec: Json) -> Json:
        return {"metadata": {"labels": {"app": app}}, "spec": self._pod_spec(spec)}

    def _pod_spec(self, spec: Mapping[str, Any]) -> Json:
        return {
            "containers": [{"name": "main", "image": "none"}],
            "nodeSelector": {"test": self.name},
            "terminationGracePeriodSeconds": 5,
            **spec,
        }

    def available(self, name: str) -> int:
        """Available replicas of a Deployment."""
        path = f"/apis/apps/v1/namespaces/{self.name}/deployments/{name}"
        return int(self.api.get(path)["status"].get("availableReplicas") or 0)

    def phase_of(self, pod: str) -> str:
        """status.phase."""
        return str(self.api.get(f"/api/v1/namespaces/{self.name}/pods/{pod}")["status"]["phase"])

    def pods(self, node: str = "", **labels: str) -> list[Json]:
        """Pods of this test that are not on their way out."""
        query = {"labelSelector": ",".join(f"{k}={v}" for k, v in labels.items())}
        if node:
            query["fieldSelector"] = f"spec.nodeName={node}"
        items = self.api.get(f"/api/v1/namespaces/{self.name}/pods", query)["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def names(self, node: str) -> set[str]:
        """Names of the pods on a node."""
        return {pod["metadata"]["name"] for pod in self.pods(node)}

    @property
    def all_nodes(self) -> list[str]:
        """Names of this test's nodes."""
        return list(self._nodes)

    def busiest(self) -> str:
        """The node with most pods of this test."""
        return max(self._nodes, key=lambda node: len(self.pods(node)))

    def budget(self, name: str, app: str, **spec: Any) -> None:
        """A PodDisruptionBudget, computed by the controller."""
        body = {
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": {"app": app}}, **spec},
        }
        path = f"/apis/policy/v1/namespaces/{self.name}/poddisruptionbudgets"
        self.create(path, body)

        def computed() -> bool:
            status = self.api.get(f"{path}/{name}").get("status") or {}
            return bool(status.get("observedGeneration"))

        until(f"budget {name} computed", computed)

    def change_budget(self, name: str, **spec: Any) -> None:
        """Patch a budget's spec."""
        path = f"/apis/policy/v1/namespaces/{self.name}/poddisruptionbudgets/{name}"
        self.patch(path, {"spec": spec})

    # -- the remediator -----------------------------------------------------------------

    def config(self, **changes: Any) -> Path:
        """A configuration file for this test's nodes; sections are merged over quick defaults."""
        value: Json = {
            "nodeSelector": {"test": self.name},
            "observeFirst": 0,
            "rules": [{"condition": "TestFault", "for": "300ms", "action": "drain"}],
            "limits": {"maxUnavailable": "50%", "minSchedulable": 0},
            "recovery": {"stabilizationWindow": "1s"},
            "lease": {
                "name": "remediator",
                "duration": "3s",
                "renewInterval": "500ms",
                "renewDeadline": "2s",
            },
        }
        for key, change in changes.items():
            value[key] = {**value.get(key, {}), **change} if isinstance(change, dict) else change
        path = self.folder / f"config-{len(self._started)}-{time.monotonic_ns()}.yaml"
        path.write_text(yaml.safe_dump(value))
        return path

    def remediator(
        self, config: Path | None = None, *, leading: bool = True, **env: str
    ) -> Remediator:
        """Start one under the chart's own permissions; with `leading`, wait until it leads."""
        log = self.folder / f"remediator-{len(self._started)}.log"
        process = Remediator(
            self._launcher, config or self.config(), self.account, self.name, log, **env
        )
        self._started.append(process)
        if leading:
            process.says("leading as")
            process.says("nodes known")
        return process

    def command(
        self, *arguments: str, config: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command for people, with an administrator's rights."""
        chosen = ["--config", str(config)] if config else []
        return subprocess.run(
            [sys.executable, "-m", "selfheal_remediator", *arguments, "-n", self.name, *chosen],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def launched(self, *arguments: str, config: Path) -> str:
        """What a command for people writes, started quickly, with an administrator's rights."""
        out = self.folder / f"{arguments[0]}-{time.monotonic_ns()}.out"
        access = ["--kubeconfig", str(self.kubeconfig), "--config", str(config), "-n", self.name]
        done = self._launcher.start([*arguments, *access], os.environ, out)
        assert done.wait() == 0, out.read_text()
        return out.read_text()

    def close(self) -> None:
        """Leave nothing that another test could see."""
        for process in self._started:
            process.kill()
        # The Lease of a killed remediator would be a living peer of the next test's.
        leases = f"/apis/coordination.k8s.io/v1/namespaces/{self.name}/leases"
        for lease in self.api.get(leases)["items"]:
            self.delete(f"{leases}/{lease['metadata']['name']}")
        self.delete(f"/api/v1/namespaces/{self.name}")
        for node in self._nodes:
            self.delete(f"/api/v1/nodes/{node}")

    def logs(self) -> Iterator[str]:
        """What the remediators said, for a failed test."""
        for process in self._started:
            yield f"--- {process.log_path.name}\n{process.log[-6000:]}"


@contextmanager
def kwok_stopped(cluster: Any) -> Iterator[None]:
    """Pods stay as they are: Terminating ones do not go, new ones do not become ready."""
    cluster.stop("kwok")
    try:
        yield
    finally:
        cluster.start("kwok")
