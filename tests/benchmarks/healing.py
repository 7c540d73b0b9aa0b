"""What pod healing costs the remediator: memory, requests, processor time.

Usage: python -m tests.benchmarks.healing [--pods 1000] [--policies 50] [--seconds 600]
       [-o table|json] [--report FILE]

A real control plane with KWOK's pods, which all stay healthy. The same remediator is run three
times against it: without policies, with them, and with each pod asked for its progress too (by
a server of this program that answers for all). Numbers are printed, never judged here.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import urllib3
import yaml

from ci.cluster import control_plane_only
from ci.cluster.kwok import node as kwok_node
from selfheal_remediator.config import ApiBudget
from selfheal_remediator.healing.owner_lookups import OWNER_EVERY
from selfheal_remediator.kube.access import load_configuration
from selfheal_remediator.kube.client import KubernetesApi

CLUSTER = "healing-bench"
PORT = 18098
CRD = Path(__file__).parents[2] / "chart" / "crds" / "healingpolicy.yaml"
POLICIES = "/apis/selfheal.dev/v1alpha1"
PODS_A_NODE = 100
#: As in the image: the tests' kubernetes-validate, which the client would load, is not there.
AS_INSTALLED = (
    "import sys; sys.modules['kubernetes_validate'] = None; "
    "from selfheal_remediator.__main__ import main; sys.exit(main())"
)
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class Bench:
    """The cluster, its pods and their policies."""

    def __init__(self, cluster: Any, pods: int, policies: int, folder: Path) -> None:
        self.kubeconfig, self.folder = cluster.kubeconfig, folder
        access, _ = load_configuration(cluster.kubeconfig)
        self.api = KubernetesApi(access, "default", ApiBudget(qps=10000, burst=10000))
        self.pods, self.apps = pods, [f"app-{number:02}" for number in range(policies)]
        self.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", _read(CRD))
        for number in range(-(-pods // PODS_A_NODE) + 1):
            body = kwok_node(f"bench-{number:03}")
            body["spec"] = {}
            self.post("/api/v1/nodes", body)
        for app in self.apps:
            self.post("/apis/apps/v1/namespaces/default/deployments", self._deployment(app))
        while self.running() < pods:
            time.sleep(1)

    def post(self, path: str, body: dict[str, Any]) -> None:
        """Make an object. Raises ApiFailure."""
        answer = self.api.send("POST", path, body=body)
        if not answer.ok:
            raise answer.failure()

    def _deployment(self, app: str) -> dict[str, Any]:
        labels = {"app": app, "part-of": "bench", "version": "v1"}
        container = {
            "name": "main",
            "image": "none",
            "ports": [{"name": "http", "containerPort": 8080}],
            "env": [{"name": f"SETTING_{number}", "value": "value"} for number in range(30)],
            "startupProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}},
        }
        return {
            "metadata": {"name": app},
            "spec": {
                "replicas": self.pods // len(self.apps),
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }

    def names(self) -> list[str]:
        """Names of the pods that run."""
        query = {"fieldSelector": "status.phase=Running", "resourceVersion": "0"}
        items = self.api.get("/api/v1/namespaces/default/pods", query)["items"]
        return [item["metadata"]["name"] for item in items]

    def running(self) -> int:
        """Pods that run."""
        return len(self.names())

    def make_policies(self) -> None:
        """One for each application."""
        while not self.api.send("GET", f"{POLICIES}/healingpolicies").ok:
            time.sleep(0.5)
        for app in self.apps:
            spec = {
                "selector": {"matchLabels": {"app": app}},
                "unhealthyWhen": {"notReadyFor": "5m", "waitingReasons": ["CrashLoopBackOff"]},
            }
            self.post(
                f"{POLICIES}/namespaces/default/healingpolicies",
                {
                    "apiVersion": "selfheal.dev/v1alpha1",
                    "kind": "HealingPolicy",
                    "metadata": {"name": app},
                    "spec": spec,
                },
            )

    def ask_for_progress(self, port: int) -> None:
        """All pods are asked from now on, at an address that answers."""
        change = {"unhealthyWhen": {"noProgressFor": "60s"}, "progress": {"port": port}}
        for app in self.apps:
            path = f"{POLICIES}/namespaces/default/healingpolicies/{app}"
            self.api.send("PATCH", path, body={"spec": change}, content_type=MERGE)
        address = {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}

        def move(name: str) -> None:
            path = f"/api/v1/namespaces/default/pods/{name}/status"
            self.api.send("PATCH", path, body={"status": address}, content_type=STRATEGIC)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(move, self.names()))

    @contextmanager
    def remediator(self) -> Iterator[subprocess.Popen[bytes]]:
        """`selfheal-remediator run`, leading."""
        path, log = self.folder / "config.yaml", self.folder / "remediator.log"
        path.write_text(yaml.safe_dump({"lease": {"namespace": "default"}, "observeFirst": 0}))
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HTTP_PORT": str(PORT)}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", AS_INSTALLED, "run", "--config", str(path)],
                env={**environment, "LOG_FORMAT": "text"},
                stderr=out,
            )
            try:
                while "leading as" not in log.read_text() or "nodes known" not in log.read_text():
                    if process.poll() is not None:
                        raise SystemExit(log.read_text())
                    time.sleep(0.1)
                yield process
            finally:
                process.terminate()
                process.wait(20)


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = json.dumps(
            {"in_flight": 1, "last_progress": time.time() - 1, "oldest_age": 1.0, "ready": True}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Not worth a line each."""


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def _mib(process: subprocess.Popen[bytes], what: str) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition(f"{what}:")[2].split()[0]) / 1024


def _cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _metric(start: str) -> float:
    text = urllib3.request("GET", f"http://127.0.0.1:{PORT}/metrics").data.decode()
    lines = [line for line in text.splitlines() if line.startswith(f"selfheal_remediator_{start}")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def measure(bench: Bench, seconds: float, policies: int, asked: bool) -> dict[str, float]:
    """One run: settled first, then watched for so long."""
    with bench.remediator() as process:
        while _metric("policy_pods{") < 2 * bench.pods * bool(policies):
            time.sleep(0.5)
        while asked and _metric("progress_probes_total{") < 2 * bench.pods:
            time.sleep(0.5)
        time.sleep(15)  # the first statuses are written
        cpu, requests = _cpu_seconds(process), _metric("api_requests_total{")
        probes, begun = _metric("progress_probes_total{"), time.monotonic()
        time.sleep(seconds)
        lasted = time.monotonic() - begun
        return {
            "resident_mib": _mib(process, "VmRSS"),
            "peak_mib": _mib(process, "VmHWM"),
            "requests_per_second": (_metric("api_requests_total{") - requests) / lasted,
            "progress_probes_per_second": (_metric("progress_probes_total{") - probes) / lasted,
            "cpu_percent": (_cpu_seconds(process) - cpu) / lasted * 100,
            "restarts": _metric("healing_restarts_total{"),
        }


def table(found: dict[str, Any]) -> str:
    """The numbers for people."""
    runs: dict[str, dict[str, float]] = found["runs"]
    names = list(next(iter(runs.values())))
    lines = ["  ".join(["".ljust(26), *(run.rjust(16) for run in runs)])]
    for name in names:
        cells = [f"{numbers[name]:.2f}".rjust(16) for numbers in runs.values()]
        lines.append("  ".join([name.ljust(26), *cells]))
    return "\n".join(lines)


def say(text: str) -> None:
    """A line for whoever waits."""
    sys.stderr.write(f"{text}\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--policies", type=int, default=50)
    # Within less, not every owner is read again, nor every watch begun again.
    parser.add_argument("--seconds", type=float, default=OWNER_EVERY)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--report", type=Path, help="write the numbers as JSON here too")
    options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with (
        control_plane_only(CLUSTER, kwok_nodes=0, say=say) as cluster,
        tempfile.TemporaryDirectory() as folder,
    ):
        bench = Bench(cluster, options.pods, options.policies, Path(folder))
        runs = {"without": measure(bench, options.seconds, 0, False)}
        say(f"without policies: {runs['without']}")
        bench.make_policies()
        runs["with policies"] = measure(bench, options.seconds, options.policies, False)
        say(f"with policies: {runs['with policies']}")
        bench.ask_for_progress(server.server_address[1])
        runs["and progress"] = measure(bench, options.seconds, options.policies, True)
    server.shutdown()
    found = {"pods": options.pods, "policies": options.policies, "runs": runs}
    text = json.dumps(found, indent=2)
    if options.report:
        options.report.write_text(text + "\n")
    sys.stdout.write((text if options.output == "json" else table(found)) + "\n")


if __name__ == "__main__":
    main()
