"""How soon a bad node is cordoned, beside a bare watch loop in the same run.

Usage: python -m tests.benchmarks.remediator_latency [--nodes 1000] [--samples 40] [--burst 100]
       [--report FILE]

A real control plane with KWOK nodes. An observer's watch takes both times, so that neither the
clock of the server nor that of the tool measured counts: from the event that shows the
condition to the event that shows the cordon. Numbers are printed and written as JSON, never
judged here.
"""

import argparse
import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import urllib3
import yaml

from ci.cluster import control_plane_only
from ci.cluster.kwok import node as kwok_node
from remediator.answers import ApiFailure
from remediator.kubernetes_api import Collection, KubernetesApi, load_configuration
from remediator.settings import ApiBudget

CONDITION = "BenchFault"
CLUSTER = "remediator-bench"
#: As in the image: the tests' kubernetes-validate, which the client would load, is not there.
AS_INSTALLED = (
    "import sys; sys.modules['kubernetes_validate'] = None; "
    "from remediator.__main__ import main; sys.exit(main())"
)


class Observer:
    """Remembers when each node was first seen bad, and first seen cordoned."""

    def __init__(self, api: KubernetesApi) -> None:
        self._nodes, self._stop = api.nodes(), threading.Event()
        self.bad: dict[str, float] = {}
        self.cordoned: dict[str, float] = {}
        self.news = threading.Condition()
        self._version = [version for _, version in self._nodes.pages()][-1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        for event in self._nodes.watch(self._version, self._stop):
            raw, now = event.raw, time.perf_counter()
            name = raw["metadata"].get("name")
            if name is None:
                continue
            with self.news:
                if any(
                    item["type"] == CONDITION and item["status"] == "True"
                    for item in (raw.get("status") or {}).get("conditions") or ()
                ):
                    self.bad.setdefault(name, now)
                if raw["spec"].get("unschedulable"):
                    self.cordoned.setdefault(name, now)
                    self.news.notify_all()

    def wait(self, names: list[str], seconds: float = 120) -> None:
        """Until all are cordoned."""
        with self.news:
            if not self.news.wait_for(lambda: self.cordoned.keys() >= set(names), seconds):
                missing = set(names) - self.cordoned.keys()
                raise SystemExit(f"not cordoned within {seconds}s: {sorted(missing)[:5]}")

    def close(self) -> None:
        """No more watching."""
        self._stop.set()
        self._nodes.close()


class Bench:
    """The cluster and the tool being measured."""

    def __init__(self, cluster: Any, count: int, folder: Path) -> None:
        self.kubeconfig, self.folder = cluster.kubeconfig, folder
        access, _ = load_configuration(cluster.kubeconfig)
        self.api = KubernetesApi(access, "default", ApiBudget(qps=10000, burst=10000))
        self.names = [f"bench-{number:04}" for number in range(count)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._create, self.names))

    def _create(self, name: str) -> None:
        body = kwok_node(name)
        body["spec"] = {}
        self.api.send("POST", "/api/v1/nodes", body=body)

    def write(self, name: str, status: str) -> None:
        """The condition, as a detector writes it."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = {"type": CONDITION, "status": status, "reason": "Bench"}
        entry |= {"lastTransitionTime": now, "lastHeartbeatTime": now}
        self.api.send(
            "PATCH",
            f"/api/v1/nodes/{name}/status",
            body={"status": {"conditions": [entry]}},
            content_type="application/strategic-merge-patch+json",
        )

    def reset(self) -> None:
        """All nodes good, schedulable, without annotation."""
        keys = ("selfheal.dev/state", "cluster-autoscaler.kubernetes.io/scale-down-disabled")
        body = {
            "metadata": {"annotations": dict.fromkeys(keys)},
            "spec": {"unschedulable": None},
        }

        def one(name: str) -> None:
            self.write(name, "False")
            kind = "application/merge-patch+json"
            self.api.send("PATCH", f"/api/v1/nodes/{name}", body=body, content_type=kind)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, self.names))

    # -- the two tools ------------------------------------------------------------------

    @contextmanager
    def bare(self) -> Iterator[subprocess.Popen[bytes]]:
        """The loop without a guard."""
        script = Path(__file__).with_name("bare_cordon_loop.py")
        process = subprocess.Popen(
            [sys.executable, str(script), str(self.kubeconfig), CONDITION], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        process.stdout.readline()
        with _ended(process):
            yield process

    @contextmanager
    def remediator(self, action: str = "cordon") -> Iterator[subprocess.Popen[bytes]]:
        """`selfheal-remediator run` with open brakes, for 0."""
        config = {
            "rules": [{"condition": CONDITION, "for": 0, "action": action}],
            "brakes": {"maxHeld": "100%", "maxDraining": 1000},
            "drain": {"headroom": False},
            "signal": {"enabled": False},
            "lease": {"namespace": "default"},
        }
        path = self.folder / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        log = self.folder / "remediator.log"
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HTTP_PORT": "18099"}
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", AS_INSTALLED, "run", "--config", str(path)],
                env={**environment, "LOG_FORMAT": "text"},
                stderr=out,
            )
            while "leading as" not in log.read_text() or "nodes known" not in log.read_text():
                if process.poll() is not None:
                    raise SystemExit(log.read_text())
                time.sleep(0.1)
            with _ended(process):
                yield process


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


def _peak_mib(process: subprocess.Popen[bytes]) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _metric(start: str) -> float:
    """Sum of the metrics whose line begins so."""
    text = urllib3.request("GET", "http://127.0.0.1:18099/metrics").data.decode()
    lines = [line for line in text.splitlines() if line.startswith(f"selfheal_remediator_{start}")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def one_by_one(bench: Bench, names: list[str]) -> list[float]:
    """Milliseconds from condition to cordon, one node each half second."""
    observer = Observer(bench.api)
    for name in names:
        bench.write(name, "True")
        time.sleep(0.5)
    observer.wait(names)
    observer.close()
    return [(observer.cordoned[name] - observer.bad[name]) * 1000 for name in names]


def at_once(bench: Bench, names: list[str]) -> float:
    """Seconds from the last condition to the last cordon."""
    observer = Observer(bench.api)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda name: bench.write(name, "True"), names))
    observer.wait(names)
    observer.close()
    return max(observer.cordoned.values()) - max(observer.bad[name] for name in names)


def budget_wake(bench: Bench, rounds: int) -> list[float]:
    """Milliseconds from a budget that opens to the next pod on its way, both seen by watches."""
    name, place = "wake", "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": "c", "image": "none"}]},
    }
    bench.api.send(
        "POST",
        "/apis/apps/v1/namespaces/default/deployments",
        body={
            "metadata": {"name": name},
            "spec": {
                "replicas": rounds + 1,
                "selector": {"matchLabels": {"app": name}},
                "template": template,
            },
        },
    )
    selector = {"selector": {"matchLabels": {"app": name}}}
    body = {"metadata": {"name": name}, "spec": {**selector, "maxUnavailable": 0}}
    bench.api.send("POST", place, body=body)
    seen: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
    stop = threading.Event()
    watches = [bench.api.budgets(), bench.api.pods()]
    for watch, look in zip(watches, (_opened, _leaving), strict=True):
        threading.Thread(target=_watch, args=(watch, look, seen, stop), daemon=True).start()

    def running() -> list[dict[str, Any]]:
        query = {"labelSelector": f"app={name}"}
        pods = bench.api.get("/api/v1/namespaces/default/pods", query)["items"]
        return [pod for pod in pods if pod["status"]["phase"] == "Running"]

    while len(running()) < rounds + 1:
        time.sleep(0.2)
    time.sleep(3)  # the budget is computed
    for node in {pod["spec"]["nodeName"] for pod in running()}:
        bench.write(node, "True")
    while _metric('evictions_total{outcome="pdb"}') < rounds + 1:
        time.sleep(0.2)
    # Opened once by one pod: each replacement that is ready opens it again.
    kind = "application/merge-patch+json"
    allow = {"spec": {"maxUnavailable": 1}}
    bench.api.send("PATCH", f"{place}/{name}", body=allow, content_type=kind)
    found: list[float] = []
    opened = None
    while len(found) < rounds:
        what, when = seen.get(timeout=60)
        if what == "opened":
            opened = when if opened is None else opened
        elif opened is not None:
            found.append((when - opened) * 1000)
            opened = None
    stop.set()
    for watch in watches:
        watch.close()
    return found


def _watch(
    collection: Collection,
    look: Callable[[dict[str, Any]], str],
    seen: "queue.SimpleQueue[tuple[str, float]]",
    stop: threading.Event,
) -> None:
    version = [version for _, version in collection.pages()][-1]
    with suppress(ApiFailure):  # the server may end while it is watched
        for event in collection.watch(version, stop):
            what = look(event.raw)
            if what:
                seen.put((what, time.perf_counter()))


def _opened(raw: dict[str, Any]) -> str:
    return "opened" if (raw.get("status") or {}).get("disruptionsAllowed") else ""


def _leaving(raw: dict[str, Any]) -> str:
    return "leaving" if raw["metadata"].get("deletionTimestamp") else ""


def _quantiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "p50": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))],
    }


def measure(bench: Bench, samples: int, burst: int, idle: float) -> dict[str, Any]:
    """All numbers of one run."""
    found: dict[str, Any] = {"nodes": len(bench.names)}
    for tool in ("bare", "remediator"):
        with getattr(bench, tool)() as process:
            numbers: dict[str, Any] = {}
            if tool == "remediator":
                cpu, requests = _cpu_seconds(process), _metric("api_requests_total{")
                time.sleep(idle)
                numbers["idle_requests_per_second"] = (
                    _metric("api_requests_total{") - requests
                ) / idle
                numbers["idle_cpu_seconds_per_minute"] = (_cpu_seconds(process) - cpu) * 60 / idle
                numbers["idle_peak_mib"] = _peak_mib(process)
            numbers["milliseconds"] = _quantiles(one_by_one(bench, bench.names[:samples]))
            numbers["burst_seconds"] = at_once(bench, bench.names[samples : samples + burst])
            numbers["peak_mib"] = _peak_mib(process)
            found[tool] = numbers
        bench.reset()
        say(f"{tool}: {json.dumps(found[tool])}")
    with bench.remediator("drain"):
        found["budget_wake_milliseconds"] = budget_wake(bench, 5)
    say(f"budget opens to next eviction: {found['budget_wake_milliseconds']} ms")
    bare, ours = found["bare"], found["remediator"]
    found["ratios"] = {
        "p50": ours["milliseconds"]["p50"] / bare["milliseconds"]["p50"],
        "p99": ours["milliseconds"]["p99"] / bare["milliseconds"]["p99"],
        "burst": ours["burst_seconds"] / max(bare["burst_seconds"], 0.001),
    }
    return found


def say(text: str) -> None:
    """A line for whoever waits."""
    sys.stderr.write(f"{text}\n")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--burst", type=int, default=100)
    parser.add_argument("--idle", type=float, default=30.0, help="seconds to look at it idle")
    parser.add_argument("--report", type=Path, help="write the numbers as JSON here too")
    options = parser.parse_args()
    with (
        control_plane_only(CLUSTER, kwok_nodes=0, say=say) as cluster,
        tempfile.TemporaryDirectory() as folder,
    ):
        bench = Bench(cluster, options.nodes, Path(folder))
        time.sleep(10)  # KWOK makes the last nodes ready
        found = measure(bench, options.samples, options.burst, options.idle)
    text = json.dumps(found, indent=2)
    if options.report:
        options.report.write_text(text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
