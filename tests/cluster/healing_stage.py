"""What the healing tests need on the demo's cluster: worker releases, small pods, policies."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ci.demo import pods
from ci.demo.kube import Kube, Object
from ci.demo.mailbox import Mailbox
from ci.demo.world import World

CHART = Path(__file__).parents[2] / "chart"
MAIN = "selfheal"
NAMESPACE = "healing"
_ONLY_WORKERS = CHART / "ci" / "worker-only-values.yaml"
_PATIENCE = 180.0
#: What can go wrong with it is a file: `broken` (it ends, and ends again), `unready`, `loading`.
APP = """
import os, pathlib, signal, sys
if os.path.exists("/data/broken"):
    sys.exit(3)
if "LOADING" in os.environ:
    pathlib.Path("/data/loading").touch()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    signal.pause()
"""
MODEL = (Path(__file__).parents[1] / "support" / "ollama_in_pod.py").read_text(encoding="utf-8")
#: A worker's process is found by its command line; the brackets keep the shell from finding itself.
_FREEZE = (
    "for p in /proc/[0-9]*; do "
    "if tr '\\0' ' ' <$p/cmdline | grep -q '[s]elfheal-worker run'; "
    "then kill -STOP ${p#/proc/}; fi; done"
)


@dataclass
class HealingStage:
    """The cluster, what is seen of it, and the image that all pods here run."""

    kube: Kube
    world: World
    mailbox: Mailbox
    image: tuple[str, str]

    def until(
        self, what: str, condition: Callable[[], object], patience: float = _PATIENCE
    ) -> None:
        """Wait for it, asked again at each change of the world."""
        self.world.until(what, lambda: bool(condition()), patience)

    # -- releases of workers

    def install(self, release: str, *sets: str) -> None:
        """A second pipeline beside the demo's: a queue of its own name, two workers."""
        repository, tag = self.image
        fixed = (
            *(f"worker.image.repository={repository}", f"worker.image.tag={tag}"),
            *(f"queue.name={release}", "autoscaling.mode=none", "worker.concurrency=4"),
            *("worker.resources.requests.cpu=20m", "worker.resources.requests.memory=64Mi"),
        )
        self.kube.helm(
            *("install", release, str(CHART), "-n", MAIN, "-f", str(_ONLY_WORKERS)),
            *(f"--set-string={one}" for one in fixed[:3]),
            *(f"--set={one}" for one in (*fixed[3:], *sets)),
        )

    def workers(self, release: str) -> list[Object]:
        """The release's workers, without those on their way out."""
        found = pods.labelled(self.world["pods"].values(), release, "worker")
        return [pod for pod in found if not pods.is_leaving(pod)]

    def ready_workers(self, release: str) -> list[Object]:
        return [pod for pod in self.workers(release) if pods.is_ready(pod)]

    def progress(self, pod: Object) -> dict[str, Any]:
        """What a worker says of its work."""
        meta = pod["metadata"]
        with self.kube.forward(meta["namespace"], f"pod/{meta['name']}", 8080) as port:
            url = f"http://127.0.0.1:{port}/progress"
            with urllib.request.urlopen(url, timeout=60) as answer:
                return dict(json.load(answer))

    def freeze(self, pod: Object) -> None:
        """SIGSTOP to the worker's process."""
        self.exec(pod, _FREEZE)

    # -- small pods

    def deploy(self, name: str, replicas: int, container: Object) -> None:
        """A Deployment in our namespace of the worker's image."""
        labels = {"app": name}
        shared = {"image": ":".join(self.image), "name": "app"}
        security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        template = {
            "metadata": {"labels": labels},
            "spec": {
                "terminationGracePeriodSeconds": 2,
                "containers": [
                    shared
                    | {
                        "securityContext": security,
                        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }
                    | container
                ],
                "securityContext": {"runAsNonRoot": True, "fsGroup": 65532},
                "volumes": [{"name": "data", "emptyDir": {}}],
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": labels},
                    }
                ],
            },
        }
        spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
        self.apply("apps/v1", "Deployment", name, NAMESPACE, spec)

    def app(self, name: str, **environment: str) -> None:
        """Two pods that can be broken (see APP)."""
        self.deploy(
            name,
            2,
            {
                "command": ["python3", "-c", APP],
                "env": [{"name": key, "value": text} for key, text in environment.items()],
                "startupProbe": _without("loading", failureThreshold=600),
                "readinessProbe": _without("unready", failureThreshold=1),
            },
        )

    def model(self) -> None:
        """A model server at `model.healing`, port 11434."""
        probe = {"tcpSocket": {"port": 11434}, "periodSeconds": 1}
        command = ["python3", "-c", MODEL]
        self.deploy("model", 1, {"command": command, "readinessProbe": probe})
        spec = {"selector": {"app": "model"}, "ports": [{"port": 11434}]}
        self.apply("v1", "Service", "model", NAMESPACE, spec)

    def apps(self, name: str, *, leaving: bool = False) -> list[Object]:
        """Our pods of that name; leaving: those on their way out, too."""
        return [
            pod
            for pod in self.world["pods"].values()
            if pod["metadata"]["namespace"] == NAMESPACE
            and pod["metadata"].get("labels", {}).get("app") == name
            and (leaving or not pods.is_leaving(pod))
        ]

    def ready_apps(self, name: str) -> list[Object]:
        return [pod for pod in self.apps(name) if pods.is_ready(pod)]

    def spoil(self, pod: Object, how: str) -> None:
        """Put one of APP's files into the pod."""
        self.exec(pod, f"touch /data/{how}; [ {how} != broken ] || kill 1")

    # -- policies and what was done

    def policy(self, name: str, namespace: str, labels: Object, **spec: Any) -> None:
        """A HealingPolicy of the test's own."""
        whole = {"selector": {"matchLabels": labels}} | spec
        self.apply("selfheal.dev/v1alpha1", "HealingPolicy", name, namespace, whole)

    def status(self, policy: str) -> Object:
        """The status of a policy by `namespace/name`."""
        found = self.world["policies"].get(policy, {})
        return dict(found.get("status", {}))

    def event_reasons(self, kind: str, name: str) -> list[str]:
        """The reasons of the remediator's Events about an object."""
        return [
            event["reason"]
            for event in self.world["events"].values()
            if event["involvedObject"]["kind"] == kind and event["involvedObject"]["name"] == name
        ]

    # -- plain access

    def exec(self, pod: Object, script: str) -> None:
        meta = pod["metadata"]
        self.kube.kubectl("-n", meta["namespace"], "exec", meta["name"], "--", "sh", "-c", script)

    def apply(self, api: str, kind: str, name: str, namespace: str, spec: Object) -> None:
        metadata = {"name": name, "namespace": namespace}
        made = {"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec}
        self.kube.kubectl("apply", "-f", "-", input=json.dumps(made))


def _without(file: str, **more: Any) -> Object:
    """A probe that passes while the file is not there."""
    command = {"command": ["test", "!", "-e", f"/data/{file}"]}
    return {"exec": command, "periodSeconds": 1, "timeoutSeconds": 30, **more}


def since(moment: float) -> float:
    """Seconds since a Unix time, as this machine and its cluster have it."""
    return time.time() - moment


def names(found: list[Object]) -> set[str]:
    return {pod["metadata"]["name"] for pod in found}
