"""A real node does what a machine of its own would do: pods, volumes, names, reboots."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ci import images
from ci.cluster import Cluster, ClusterError, Spec
from ci.cluster.machine import check_root

pytestmark = pytest.mark.cluster

NAMESPACE = "strict"


@pytest.fixture(scope="module")
def cluster(unavailable: Callable[[str], None]) -> Iterator[Cluster]:
    try:
        check_root()
    except ClusterError as error:
        unavailable(str(error))
    with Cluster("one-node", Spec(nodes=1, addons=("coredns",))) as started:
        label = {"pod-security.kubernetes.io/enforce": "restricted"}
        metadata = {"name": NAMESPACE, "labels": label}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        started.kubectl("apply", "-f", "-", input=json.dumps(namespace))
        yield started


def pod(name: str, claim: str = "") -> str:
    """A pod that Pod Security `restricted` admits."""
    container = {
        "name": "pause",
        "image": images.ensure(["pause"])["pause"].ref,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [{"name": "data", "mountPath": "/data"}] if claim else [],
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim}}
    spec = {
        "containers": [container],
        "volumes": [volume] if claim else [],
        "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    metadata = {"name": name, "namespace": NAMESPACE}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def claim(name: str) -> str:
    """A claim of the default StorageClass."""
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": name, "namespace": NAMESPACE}
    kind = "PersistentVolumeClaim"
    return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": wanted})


def test_a_restricted_pod_runs_under_seccomp_and_survives_a_reboot(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", input=pod("plain"))
    ready = ["wait", "pod/plain", f"--namespace={NAMESPACE}", "--timeout=60s"]
    cluster.kubectl(*ready, "--for=condition=Ready")

    cluster.reboot("node-1")

    restarts = "{.status.containerStatuses[0].restartCount}"
    cluster.kubectl(*ready, f"--for=jsonpath={restarts}=1")
    cluster.kubectl(*ready, "--for=condition=Ready")


def test_logs_commands_and_ports_of_a_pod_are_reached_from_here(cluster: Cluster) -> None:
    cluster.kubectl("rollout", "status", "deployment/coredns", "--namespace=kube-system")
    where = ["--namespace=kube-system", "deployment/coredns"]
    assert "CoreDNS-" in cluster.kubectl("logs", *where)
    assert "CoreDNS-" in cluster.kubectl("exec", *where, "--", "/coredns", "-version")
    forward = [*cluster.kubectl_command(), "port-forward", *where, ":8080"]
    with subprocess.Popen(forward, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert port is not None
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/health", timeout=60) as answer:
            assert answer.read() == b"OK"
        process.terminate()


def test_a_volume_is_empty_again_for_the_next_claim_of_the_same_name(cluster: Cluster) -> None:
    for _ in range(2):
        cluster.kubectl("apply", "-f", "-", input=claim("data"))
        cluster.kubectl("apply", "-f", "-", input=pod("keeper", claim="data"))
        bound = ["wait", "--for=condition=Ready", "pod/keeper", f"--namespace={NAMESPACE}"]
        cluster.kubectl(*bound, "--timeout=60s")
        folder = volume_folder(cluster)
        assert list(folder.iterdir()) == []
        (folder / "written").touch()

        cluster.kubectl("delete", "pod/keeper", "pvc/data", f"--namespace={NAMESPACE}")
        name = folder.name
        released = "--for=jsonpath={.status.phase}=Released"
        cluster.kubectl("wait", f"pv/{name}", released, "--timeout=30s")
        cluster.reset_volumes()
        cluster.kubectl("wait", f"pv/{name}", "--for=jsonpath={.status.phase}=Available")


def volume_folder(cluster: Cluster) -> Path:
    """The folder on this machine behind the claim."""
    name = cluster.kubectl(
        "get", "pvc/data", f"--namespace={NAMESPACE}", "-o", "jsonpath={.spec.volumeName}"
    )
    found = cluster.kubectl("get", f"pv/{name}", "-o", "jsonpath={.spec.hostPath.path}")
    return Path(found)


def test_a_stopped_kubelet_is_seen_and_comes_back(cluster: Cluster) -> None:
    cluster.stop("node-1-kubelet")
    assert cluster.status().phase == "broken"
    assert cluster.status().parts["node-1-kubelet"] is False
    cluster.start("node-1-kubelet")
    assert cluster.status().phase == "ready"


def test_what_is_not_there_is_named(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="no such image archive: /nonesuch"):
        cluster.load(Path("/nonesuch"))
    with pytest.raises(ClusterError, match="no such node: node-9; there are node-1"):
        cluster.reboot("node-9")
    with pytest.raises(ClusterError, match=r"no such part: kubelet; there are .*node-1-kubelet"):
        cluster.start("kubelet")
