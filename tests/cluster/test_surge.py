"""An application of one replica loses no request while its node is drained, on real nodes.

A client beside it sends requests through its Service all the time, each on a new connection.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ci import images
from ci.cluster import Cluster, ClusterError, Spec
from ci.cluster.machine import check_root
from tests.support.waiting import until

pytestmark = pytest.mark.cluster

Json = dict[str, Any]
NAMESPACE = "shop"
PATIENCE = 180.0
#: Serves until it is stopped.
APP = """
import http.server, signal, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("", 8000), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
"""
#: Prints the requests sent and failed so far, once a second.
CLIENT = """
import sys, time, urllib.request
sent = failed = 0
printed = time.monotonic()
while True:
    sent += 1
    try:
        assert urllib.request.urlopen(sys.argv[1], timeout=60).read() == b"ok"
    except Exception as error:
        failed += 1
        print("failed:", repr(error), flush=True)
    if time.monotonic() - printed > 1:
        printed = time.monotonic()
        print(sent, failed, flush=True)
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def cluster(unavailable: Callable[[str], None]) -> Iterator[Cluster]:
    """Two real nodes, on which only these pods run."""
    try:
        check_root()
    except ClusterError as error:
        unavailable(str(error))
    with Cluster("surge", Spec(nodes=2, addons=())) as started:
        started.load(images.ensure(["worker"])["worker"].archive)
        started.kubectl("create", "namespace", NAMESPACE)
        yield started


def test_no_request_fails_while_the_only_pod_moves(cluster: Cluster, tmp_path: Path) -> None:
    _furnish(cluster)
    [before] = _pods(cluster, "web")
    bad = before["spec"]["nodeName"]
    until("requests are answered", lambda: _count(cluster)[0] > 50, PATIENCE)
    config = tmp_path / "remediator.yaml"
    config.write_text(json.dumps(_configuration()))
    with _running(cluster, config, tmp_path / "remediator.log") as process:
        _command(cluster, config, "drain", bad, "--why", "a test of surges")
        until("drained", lambda: process.poll() is not None or _drained(cluster, bad), PATIENCE)
        at_the_end = _count(cluster)[0]
        until("the client continues", lambda: _count(cluster)[0] > at_the_end + 50, PATIENCE)
    log = cluster.kubectl("logs", "client", "-n", NAMESPACE)
    assert _count(cluster)[1] == 0, [line for line in log.splitlines() if "failed" in line]
    [after] = _pods(cluster, "web")
    assert after["spec"]["nodeName"] != bad
    sets = json.loads(cluster.kubectl("get", "replicasets", "-n", NAMESPACE, "-o", "json"))
    assert len(sets["items"]) == 2


def _furnish(cluster: Cluster) -> None:
    labels = {"app": "web"}
    probe = {"httpGet": {"port": 8000}, "periodSeconds": 1}
    # Until every node's proxy has taken it out of the Service.
    late = {"preStop": {"exec": {"command": ["sleep", "5"]}}}
    pod = _pod_spec(APP, readinessProbe=probe, lifecycle=late)
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    _apply(cluster, "apps/v1", "Deployment", "web", spec, {"selfheal.dev/surge": "true"})
    port = {"port": 80, "targetPort": 8000}
    _apply(cluster, "v1", "Service", "web", {"selector": labels, "ports": [port]})
    budget = {"selector": {"matchLabels": labels}, "minAvailable": 1}
    _apply(cluster, "policy/v1", "PodDisruptionBudget", "web", budget)
    where = ("-n", NAMESPACE)
    cluster.kubectl("rollout", "status", "deployment/web", *where, seconds=PATIENCE)
    [web] = _pods(cluster, "web")
    [other] = {"node-1", "node-2"} - {web["spec"]["nodeName"]}
    service = json.loads(cluster.kubectl("get", "service", "web", *where, "-o", "json"))
    client = _pod_spec(CLIENT, f"http://{service['spec']['clusterIP']}/")
    _apply(cluster, "v1", "Pod", "client", {**client, "nodeName": other})
    ready = ("--for=condition=Ready", f"--timeout={PATIENCE:.0f}s")
    cluster.kubectl("wait", "pod/client", *where, *ready, seconds=PATIENCE + 10)


def _pod_spec(script: str, *arguments: str, **more: Any) -> Json:
    container = {
        "name": "main",
        "image": images.ensure(["worker"])["worker"].ref,
        "command": ["python3", "-c", script, *arguments],
        **more,
    }
    return {"containers": [container], "terminationGracePeriodSeconds": 20}


def _apply(
    cluster: Cluster,
    api: str,
    kind: str,
    name: str,
    spec: Json,
    annotations: dict[str, str] | None = None,
) -> None:
    meta = {"name": name, "namespace": NAMESPACE, "annotations": annotations or {}}
    raw = {"apiVersion": api, "kind": kind, "metadata": meta, "spec": spec}
    cluster.kubectl("apply", "-f", "-", input=json.dumps(raw))


def _pods(cluster: Cluster, app: str) -> list[Json]:
    """Its pods that are not on their way out."""
    found = cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", f"app={app}", "-o", "json")
    return [p for p in json.loads(found)["items"] if "deletionTimestamp" not in p["metadata"]]


def _count(cluster: Cluster) -> tuple[int, int]:
    """How many requests the client has sent, and how many of them failed."""
    lines = cluster.kubectl("logs", "client", "-n", NAMESPACE).splitlines()
    counts = [line.split() for line in lines if not line.startswith("failed")]
    return (int(counts[-1][0]), int(counts[-1][1])) if counts else (0, 0)


def _configuration() -> Json:
    return {
        "observeFirst": 0,
        "rules": [{"condition": "TestFault", "for": "1m", "action": "drain"}],
        "limits": {"maxUnavailable": "50%", "minSchedulable": 0},
        "policies": {"enabled": False},
        "drain": {"surge": True},
    }


@contextmanager
def _running(cluster: Cluster, config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The remediator, with an administrator's rights."""
    variables = {"CONFIG_FILE": str(config), "POD_NAMESPACE": NAMESPACE, "HTTP_PORT": "0"}
    program = [sys.executable, "-m", "selfheal_remediator", "run"]
    with (
        log.open("w") as out,
        subprocess.Popen(
            [*program, "--kubeconfig", str(cluster.kubeconfig)],
            env={**os.environ, **variables},
            stdout=out,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield process
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()


def _command(cluster: Cluster, config: Path, *arguments: str) -> None:
    access = ("--kubeconfig", str(cluster.kubeconfig), "--config", str(config), "-n", NAMESPACE)
    command = [sys.executable, "-m", "selfheal_remediator", *arguments, *access]
    until(
        f"{arguments[0]} is accepted",
        lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0,
        PATIENCE,
    )


def _drained(cluster: Cluster, node: str) -> bool:
    raw = json.loads(cluster.kubectl("get", "node", node, "-o", "json"))
    state = raw["metadata"]["annotations"].get("selfheal.dev/state", "{}")
    return bool(json.loads(state).get("phase") == "drained")
