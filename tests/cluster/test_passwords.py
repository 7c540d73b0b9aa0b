"""The broker's passwords in real pods: made by the Job of a release that Helm did not install, and
taken from a Secret of the user's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from ci import images, parts
from ci.cluster import Cluster
from ci.demo.kube import Kube

pytestmark = pytest.mark.cluster

CHART = Path(__file__).parents[2] / "chart"
NAMESPACE = RELEASE = "synced"
PREFIX = "synced-selfheal"
#: Argo CD renders without a cluster, and says which kinds it has.
RENDER = tuple(
    f"--api-versions={name}"
    for name in ("v1", "v1/Secret", "apps/v1/Deployment", "keda.sh/v1alpha1/ScaledObject")
)
VALUES = {
    # What there can be only one of in a cluster, the demo's release has.
    "remediator": {"enabled": False},
    "nodeProblemDetector": {"enabled": False},
    "autoscaling": {"mode": "none"},
    "worker": {"replicas": 1, "resources": {"requests": {"cpu": "50m", "memory": "96Mi"}}},
    "rabbitmq": {
        "persistence": {"enabled": False},
        "resources": {"requests": {"cpu": "50m", "memory": "256Mi"}},
    },
}
#: A Secret that somebody else made, with keys of its own; what a shell or JSON could stumble over.
OWN = {
    "user": "feedback",
    "pw": 'a"b\\c $(id) `x` @password@ ünï',
    "watcher": "watcher",
    "watcher-pw": "%s\\n 'm'",
}
OWN_KEYS = {
    "username": "user",
    "password": "pw",
    "monitorUsername": "watcher",
    "monitorPassword": "watcher-pw",
}


@dataclass(frozen=True)
class Synced:
    """The release as Argo CD applies it, where Pod Security `restricted` is enforced."""

    kube: Kube
    values: Path
    applied: list[str] = field(default_factory=list)

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        return self.kube.kubectl("-n", NAMESPACE, *arguments, input=text)

    def sync(self, *settings: str) -> None:
        """`helm template` and `kubectl apply`, and everything is ready."""
        sets = [word for one in settings for word in ("--set", one)]
        where = ["template", RELEASE, str(CHART), "-n", NAMESPACE, "--no-hooks", *RENDER]
        rendered = self.kube.helm(*where, "--values", str(self.values), *sets)
        self.applied.append(rendered)
        self.kubectl("apply", "-f", "-", text=rendered)
        # A worker is ready when it has logged in and consumes.
        for what in (f"statefulset/{PREFIX}-rabbitmq", f"deployment/{PREFIX}-worker"):
            self.kubectl("rollout", "status", what, "--timeout=240s")

    def secret(self) -> dict[str, str]:
        """The data of the release's own Secret."""
        encoded = self.kube.get("secret", f"{PREFIX}-rabbitmq", "-n", NAMESPACE)["data"]
        return {key: base64.b64decode(value).decode() for key, value in encoded.items()}

    def pods(self) -> set[str]:
        return {pod["metadata"]["uid"] for pod in self.kube.items("pods", "-n", NAMESPACE)}

    def log_in(self, user: str, password: str) -> None:
        """Raises CommandFailed when the broker does not know them."""
        broker = ["exec", f"{PREFIX}-rabbitmq-0", "-c", "rabbitmq", "--"]
        self.kubectl(*broker, "rabbitmqctl", "authenticate_user", user, password)


def _values() -> dict[str, object]:
    made = images.ensure(["worker", "rabbitmq"])
    values = json.loads(json.dumps(VALUES))
    for name, image in made.items():
        repository, _, tag = image.ref.rpartition(":")
        values[name]["image"] = {"repository": repository, "tag": tag}
    return dict(values)


@pytest.fixture(scope="module")
def synced(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synced]:
    """Synced once, without any password in the manifests."""
    programs = parts.ensure(["kubectl", "helm"])
    kube = Kube(str(programs["kubectl"]), str(programs["helm"]), cluster.kubeconfig)
    metadata = {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    kube.kubectl("create", "-f", "-", input=yaml.safe_dump(namespace))
    values = tmp_path_factory.mktemp("synced") / "values.yaml"
    values.write_text(yaml.safe_dump(_values()))
    made = Synced(kube, values)
    try:
        made.sync()
        yield made
    finally:
        # In no namespace there is a PriorityClass.
        for manifests in made.applied[-1:]:
            gone = ["--ignore-not-found", "--wait=false"]
            made.kubectl("delete", *gone, "-f", "-", text=manifests)
        made.kubectl("delete", "pods", "--all", "--grace-period=1", "--wait=false")
        kube.kubectl("delete", "namespace", NAMESPACE, "--timeout=120s")


def test_the_job_makes_passwords_that_the_next_sync_leaves_alone(synced: Synced) -> None:
    done = "--for=condition=Complete"
    job = "app.kubernetes.io/component=rabbitmq-passwords"
    synced.kubectl("wait", "job", "-l", job, done, "--timeout=120s")
    made, pods = synced.secret(), synced.pods()
    assert len(made["password"]) == len(made["monitor-password"]) == 32
    assert made["password"] != made["monitor-password"]
    synced.log_in(made["username"], made["password"])
    synced.log_in(made["monitor-username"], made["monitor-password"])

    synced.sync()
    assert synced.secret() == made
    assert synced.pods() == pods


def test_the_broker_and_the_workers_take_a_secret_of_the_users(synced: Synced) -> None:
    metadata = {"name": "mine"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": OWN}
    synced.kubectl("create", "-f", "-", text=json.dumps(secret))
    keys = [f"rabbitmq.auth.secretKeys.{key}={name}" for key, name in OWN_KEYS.items()]
    synced.sync("rabbitmq.auth.existingSecret=mine", *keys)

    broker = synced.kube.get("pod", f"{PREFIX}-rabbitmq-0", "-n", NAMESPACE)
    [wrote] = broker["status"]["initContainerStatuses"]
    assert (wrote["name"], wrote["state"]["terminated"]["reason"]) == ("definitions", "Completed")
    synced.log_in(OWN["user"], OWN["pw"])
    synced.log_in(OWN["watcher"], OWN["watcher-pw"])
