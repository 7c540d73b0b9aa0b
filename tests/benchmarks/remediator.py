"""The remediator beside what the API server itself allows, and beside a watch with kubectl.

`bare` is a raw watch loop without any rule, limit or guard (tests.benchmarks.bare_loop): the
ideal. `kubectl` runs `kubectl cordon` or `kubectl drain` for each bad node that a watch shows.
`selfheal` is `selfheal-remediator run` with open limits. A real control plane with pretended
(KWOK) nodes; times are an observer's, requests come from the API server's audit log. Ratios
count: machines differ, and one is never as quiet as the last time. The last run of each row is
kept in build/bench-remediator.json.

    make bench-remediator BENCH="[ROW…] [--scale 1.0] [--tools bare,selfheal,kubectl] [-o json]"
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ci.cluster import Cluster, Spec
from ci.parts import ensure
from tests.benchmarks.remediator_stage import (
    CONDITION,
    PATIENCE,
    Landing,
    Observer,
    Openings,
    Stage,
    quantile,
    written,
)
from tests.benchmarks.report import commit
from tests.control_plane.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CLUSTER = "remediator-bench"
KEPT = Path("build/bench-remediator.json")
AGENTS = {"bare": "bare-loop", "selfheal": "selfheal-remediator", "kubectl": "kubectl/"}
TOOLS = tuple(AGENTS)
#: As in the image: the tests' kubernetes-validate, which the client would load, is not there.
AS_INSTALLED = (
    "import sys; sys.modules['kubernetes_validate'] = None; "
    "from selfheal_remediator.__main__ import main; sys.exit(main())"
)
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Result:
    """What one tool did in one row. Numbers by name; requests by kind."""

    tool: str
    numbers: dict[str, float] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)


class Tool:
    """A running tool with all its children: processor seconds and peak memory."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self.log = process, log
        self.peak = 0.0
        self._stop = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while not self._stop.wait(0.2):
            self.peak = max(self.peak, sum(_resident(pid) for pid in _family(self.process.pid)))

    @property
    def cpu(self) -> float:
        """Processor seconds so far, of children that have ended too."""
        return sum(_cpu(pid) for pid in _family(self.process.pid))

    def close(self) -> None:
        """Ends it and what it started."""
        self._stop.set()
        family = _family(self.process.pid)
        self.process.terminate()
        self.process.wait(30)
        for pid in family[1:]:
            try:
                os.kill(pid, 15)
            except ProcessLookupError:
                continue


def _family(root: int) -> list[int]:
    try:
        children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
        threads = Path(f"/proc/{root}/task").iterdir()
        for thread in threads:
            if thread.name != str(root):
                children += (thread / "children").read_text().split()
    except OSError:
        return [root]
    return [root, *(pid for child in children for pid in _family(int(child)))]


def _resident(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 2**20
    except (OSError, IndexError):
        return 0.0


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(value) for value in fields[11:15]) / _TICKS


class Bench:
    """Starts tools on the stage and runs rows."""

    def __init__(self, stage: Stage, folder: Path, options: argparse.Namespace) -> None:
        self.stage, self.folder, self.options = stage, folder, options
        #: Where tools find the API server.
        self.kubeconfig = stage.kubeconfig

    def scaled(self, number: int) -> int:
        """A row's number at the scale asked for."""
        scale: float = self.options.scale
        return max(1, round(number * scale))

    @contextmanager
    def tool(self, name: str, action: str, lasting: float = 0) -> Iterator[Tool]:
        """The tool itself; ours waits until a condition has lasted so many seconds."""
        log = self.folder / f"{name}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                self._command(name, action, lasting),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "HTTP_PORT": "0", "LOG_FORMAT": "text"},
            )
        running = Tool(process, log)
        try:
            self._wait_started(name, running)
            yield running
        finally:
            running.close()
            if process.stdout is not None:
                process.stdout.close()

    def _command(self, name: str, action: str, lasting: float) -> list[str]:
        kubeconfig = str(self.kubeconfig)
        module = [sys.executable, "-m"]
        if name == "bare":
            return [*module, "tests.benchmarks.bare_loop", kubeconfig, CONDITION, action]
        if name == "kubectl":
            kubectl = str(ensure(["kubectl"])["kubectl"])
            loop = "tests.benchmarks.kubectl_loop"
            return [*module, loop, kubectl, kubeconfig, CONDITION, action]
        config = {
            "observeFirst": 0,
            "rules": [{"condition": CONDITION, "for": lasting, "action": action}],
            "limits": {"maxUnavailable": "100%", "maxDraining": 1000},
            "drain": {"headroom": False},
            "signal": {"enabled": False},
            "policies": {"enabled": False},
            "lease": {"namespace": "default"},
        }
        path = written(self.folder, "config.yaml", yaml.safe_dump(config))
        access = ["--kubeconfig", kubeconfig, "--config", str(path)]
        return [sys.executable, "-c", AS_INSTALLED, "run", *access]

    def _wait_started(self, name: str, running: Tool) -> None:
        if name != "selfheal":
            assert running.process.stdout is not None
            if not running.process.stdout.readline():
                raise SystemExit(f"{name} does not start:\n{running.log.read_text()}")
            time.sleep(1)
            return
        ends = time.monotonic() + PATIENCE
        while not all(word in running.log.read_text() for word in ("leading as", "nodes known")):
            if running.process.poll() is not None or time.monotonic() > ends:
                raise SystemExit(f"{name} does not start:\n{running.log.read_text()}")
            time.sleep(0.2)
        time.sleep(2)

    def measured(
        self, name: str, action: str, work: Callable[[], dict[str, float]], lasting: float = 0
    ) -> Result:
        """Run the tool, do the work beside it, count what it cost."""
        with self.tool(name, action, lasting) as running:
            start, cpu = self.stage.audit_mark(), running.cpu
            numbers = work()
            spent = running.cpu - cpu
            end = self.stage.audit_mark()
            numbers |= {"cpu_s": spent, "peak_mib": running.peak}
        requests = self.stage.requests(AGENTS[name], start, end)
        return Result(name, {**numbers, "calls": requests.total()}, dict(requests))


# -- rows ------------------------------------------------------------------------------------


def one_by_one(nodes: int) -> Callable[[Bench, str], Result]:
    """Condition to cordon, one node each half second, among so many."""

    def row(bench: Bench, tool: str) -> Result:
        bench.stage.need(bench.scaled(nodes))
        names = bench.stage.names[: bench.options.samples]
        times = _cordon_times(bench, tool, names)
        result = times.result
        result.numbers |= {"p50_ms": quantile(times.ms, 0.5), "p99_ms": quantile(times.ms, 0.99)}
        return result

    row.__doc__ = f"Condition to cordon, one node each half second, of {nodes}."
    return row


def lasting(seconds: float) -> Callable[[Bench, str], Result]:
    """A rule that waits: how much later than that the node is cordoned. Nothing beats meanwhile."""

    def row(bench: Bench, tool: str) -> Result:
        bench.stage.need(bench.scaled(1000))
        names = bench.stage.names[: bench.options.samples]
        times = _cordon_times(bench, tool, names, seconds)
        late = [one - seconds * 1000 for one in times.ms]
        result = times.result
        result.numbers |= {"late_p50_ms": quantile(late, 0.5), "late_p99_ms": quantile(late, 0.99)}
        return result

    row.__doc__ = f"A rule with `for: {seconds:g}s`: how late it fires, to the cordon."
    return row


@dataclass
class CordonTimes:
    """Milliseconds from each condition to its cordon, and what the run cost."""

    result: Result
    ms: list[float] = field(default_factory=list)


def _cordon_times(bench: Bench, tool: str, names: list[str], lasting: float = 0) -> CordonTimes:
    times: list[float] = []

    def work() -> dict[str, float]:
        observer = Observer(bench.stage)
        for name in names:
            bench.stage.write(name, "True")
            time.sleep(0.5)
        observer.wait(observer.cordoned, names)
        observer.close()
        times.extend((observer.cordoned[n] - observer.bad[n]) * 1000 for n in names)
        return {}

    measure = partial(bench.measured, tool, "cordon", work, lasting)
    return CordonTimes(_reset_after(bench, names, measure), times)


def at_once(count: int) -> Callable[[Bench, str], Result]:
    """So many nodes bad at once, limits open: from the last condition to the last cordon."""

    def row(bench: Bench, tool: str) -> Result:
        bench.stage.need(bench.scaled(1000))
        names = bench.stage.names[: bench.scaled(count)]

        def work() -> dict[str, float]:
            observer = Observer(bench.stage)
            bench.stage.each(lambda name: bench.stage.write(name, "True"), names, 16)
            observer.wait(observer.cordoned, names)
            observer.close()
            last = max(observer.bad[name] for name in names)
            first = min(observer.bad[name] for name in names)
            done = max(observer.cordoned.values())
            return {"after_last_s": done - last, "from_first_s": done - first}

        return _reset_after(bench, names, lambda: bench.measured(tool, "cordon", work))

    row.__doc__ = f"{count} nodes bad at once, limits open: all cordoned."
    return row


def a_second(bench: Bench, tool: str) -> Result:
    """A bad node a second with 10 pods each: from the condition to the node empty."""
    bench.stage.need(bench.scaled(1000))
    names = bench.stage.names[: bench.options.drains]
    label = bench.stage.fill(names, 10)

    def work() -> dict[str, float]:
        observer = Observer(bench.stage, label)
        for name in names:
            bench.stage.write(name, "True")
            time.sleep(1)
        observer.wait(observer.empty, names)
        observer.close()
        times = [observer.empty[name] - observer.bad[name] for name in names]
        return {"p50_s": quantile(times, 0.5), "p99_s": quantile(times, 0.99)}

    found = _reset_after(bench, names, lambda: bench.measured(tool, "drain", work))
    return _per_pod(found, 10 * len(names), len(names))


def many_drains(nodes: int, pods: int) -> Callable[[Bench, str], Result]:
    """So many nodes with so many pods each, bad at once: from the first condition to all empty."""

    def row(bench: Bench, tool: str) -> Result:
        bench.stage.need(bench.scaled(1000))
        names = bench.stage.names[: bench.scaled(nodes)]
        label = bench.stage.fill(names, pods)

        def work() -> dict[str, float]:
            observer = Observer(bench.stage, label)
            bench.stage.each(lambda name: bench.stage.write(name, "True"), names, 16)
            observer.wait(observer.empty, names)
            observer.close()
            begun = min(observer.bad[name] for name in names)
            return {"all_empty_s": max(observer.empty.values()) - begun}

        found = _reset_after(bench, names, lambda: bench.measured(tool, "drain", work))
        return _per_pod(found, pods * len(names), len(names))

    row.__doc__ = f"{nodes} nodes with {nodes * pods} pods bad at once: all empty."
    return row


def pods_a_node(pods: int) -> Callable[[Bench, str], Result]:
    """One node with so many pods: from the condition to the node empty."""

    def row(bench: Bench, tool: str) -> Result:
        (name,) = bench.stage.need(max(1, len(bench.stage.names)))[:1]
        label = bench.stage.fill([name], bench.scaled(pods))

        def work() -> dict[str, float]:
            observer = Observer(bench.stage, label)
            bench.stage.write(name, "True")
            observer.wait(observer.empty, [name])
            observer.close()
            return {"empty_s": observer.empty[name] - observer.bad[name]}

        return _reset_after(bench, [name], lambda: bench.measured(tool, "drain", work))

    row.__doc__ = f"One node with {pods} pods: empty."
    return row


def behind_a_budget(bench: Bench, tool: str) -> Result:
    """20 pods behind maxUnavailable 1, replacements ready in a second: the node empty."""
    stage, pods = bench.stage, bench.scaled(20)
    (bad,) = stage.need(max(1, len(stage.names)))[:1]
    kind = "application/merge-patch+json"
    label = {"metadata": {"labels": {"landing": "yes"}}}
    stage.api.send("PATCH", f"/api/v1/nodes/{bad}", body=label, content_type=kind)
    landing = Landing(stage, 1.0)
    away = f"/api/v1/nodes/{Landing.NAME}"

    def cordon(value: bool) -> None:
        body = {"spec": {"unschedulable": value or None}}
        stage.api.send("PATCH", away, body=body, content_type=kind)

    cordon(True)
    name = f"budget-{tool}-{time.monotonic_ns()}"
    selector = {"matchLabels": {"app": name}}
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "nodeSelector": {"landing": "yes"},
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "none"}],
        },
    }
    spec = {"replicas": pods, "selector": selector, "template": template}
    deployments = "/apis/apps/v1/namespaces/default/deployments"
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    stage.create(deployments, {"metadata": {"name": name}, "spec": spec})
    guard = {"selector": selector, "maxUnavailable": 1}
    stage.create(budgets, {"metadata": {"name": name}, "spec": guard})
    stage.until_running(f"app={name}", pods)
    while not (stage.api.get(f"{budgets}/{name}").get("status") or {}).get("disruptionsAllowed"):
        time.sleep(0.2)
    cordon(False)

    def work() -> dict[str, float]:
        observer = Observer(stage, f"app={name}")
        stage.write(bad, "True")
        observer.wait(observer.empty, [bad])
        observer.close()
        return {"empty_s": observer.empty[bad] - observer.bad[bad]}

    try:
        found = _reset_after(bench, [bad], lambda: bench.measured(tool, "drain", work))
    finally:
        stage.api.send("DELETE", f"{deployments}/{name}")
        stage.api.send("DELETE", f"{budgets}/{name}")
        landing.close()
    return _per_pod(found, pods, 1)


def beside_hanging(bench: Bench, tool: str) -> Result:
    """100 evictions hang for 12 s each: from another node's condition to its cordon."""
    stage, hanging = bench.stage, threading.Event()
    names = stage.need(max(len(stage.names), 10 + bench.options.samples))
    full, others = names[:10], names[10 : 10 + bench.options.samples]
    stage.fill(full, 10)

    def before(number: int) -> bool:
        if "/eviction" in proxy.seen[number - 1]:
            hanging.set()
            time.sleep(12)
        return True

    def work() -> dict[str, float]:
        observer = Observer(stage)
        stage.each(lambda name: stage.write(name, "True"), full)
        if not hanging.wait(PATIENCE):
            raise SystemExit("no eviction was asked for")
        for name in others:
            stage.write(name, "True")
            time.sleep(0.5)
        observer.wait(observer.cordoned, others)
        observer.close()
        times = [(observer.cordoned[name] - observer.bad[name]) * 1000 for name in others]
        return {"p50_ms": quantile(times, 0.5), "worst_ms": max(times)}

    proxy = Proxy(stage.kubeconfig, before)
    bench.kubeconfig = proxy.kubeconfig(stage.kubeconfig, bench.folder / "proxied.kubeconfig")
    try:
        return _reset_after(bench, names, lambda: bench.measured(tool, "drain", work))
    finally:
        bench.kubeconfig = stage.kubeconfig
        proxy.close()


def woken(bench: Bench, tool: str) -> Result:
    """Pods behind a budget without room, which opens by one, 20 times: until the next is gone."""
    stage, count = bench.stage, bench.options.wakes
    bad, other = stage.need(max(2, len(stage.names)))[:2]
    label = stage.fill([bad], count)
    row = int(label.partition("=")[2])
    budget = stage.guard(label, count)

    def work() -> dict[str, float]:
        observer, openings = Observer(stage), Openings(stage, budget, label, bad)
        stage.write(bad, "True")
        observer.wait(observer.cordoned, [bad])
        observer.close()
        time.sleep(5)  # by now it was refused
        for number in range(count):
            stage.add(row, other, count + number)
            openings.wait(number + 1)
        openings.close()
        pairs = zip(openings.opened, openings.gone, strict=False)
        times = [(gone - opened) * 1000 for opened, gone in pairs]
        return {"p50_ms": quantile(times, 0.5), "p99_ms": quantile(times, 0.99)}

    found = _reset_after(bench, [bad], lambda: bench.measured(tool, "drain", work))
    found.numbers["posts_per_pod"] = found.requests["create pods/eviction"] / count
    return found


def idle(nodes: int) -> Callable[[Bench, str], Result]:
    """So many good nodes: memory, requests and processor time while nothing happens."""

    def row(bench: Bench, tool: str) -> Result:
        stage, seconds = bench.stage, bench.options.idle
        names = stage.need(bench.scaled(nodes))
        if nodes >= 5000:
            have = stage.count("/api/v1/namespaces/default/pods", {"labelSelector": "row=1"})
            if not have:
                stage.fill(names, 4)

        def work() -> dict[str, float]:
            time.sleep(seconds)
            return {"seconds": seconds}

        found = bench.measured(tool, "drain", work)
        total = sum(found.requests.values())
        found.numbers["requests_per_s"] = total / (seconds + 2.5)
        found.numbers["cpu_s_per_minute"] = found.numbers.pop("cpu_s") * 60 / seconds
        return found

    row.__doc__ = f"{nodes} good nodes: memory, requests, processor time while nothing happens."
    return row


def _reset_after(bench: Bench, names: list[str], run: Callable[[], Result]) -> Result:
    try:
        return run()
    finally:
        bench.stage.reset(names)


def _per_pod(found: Result, pods: int, nodes: int) -> Result:
    requests = Counter(found.requests)
    events = sum(count for what, count in requests.items() if what.endswith(" events"))
    leases = sum(count for what, count in requests.items() if what.endswith(" leases"))
    work = requests.total() - events - leases
    found.numbers |= {
        "posts_per_pod": requests["create pods/eviction"] / pods,
        "gets_per_pod": requests["get pods"] / pods,
        "requests_per_node": work / nodes,
        "beyond_pods_per_node": (work - pods) / nodes,
    }
    return found


#: In the order of the nodes that they need: those that are there stay.
ROWS: dict[str, Callable[[Bench, str], Result]] = {
    "latency-100": one_by_one(100),
    "idle-100": idle(100),
    "pods-10": pods_a_node(10),
    "pods-50": pods_a_node(50),
    "pods-200": pods_a_node(200),
    "hanging": beside_hanging,
    "latency": one_by_one(1000),
    "for": lasting(2),
    "burst-100": at_once(100),
    "burst-500": at_once(500),
    "a-second": a_second,
    "drain-50": many_drains(50, 10),
    "drain-150": many_drains(150, 15),
    "budget": behind_a_budget,
    "wake-up": woken,
    "idle-1000": idle(1000),
    "latency-5000": one_by_one(5000),
    "idle-5000": idle(5000),
}
#: Rows that only these tools can do.
ONLY = {"for": ("selfheal",), "hanging": ("selfheal",)}


# -- saying ----------------------------------------------------------------------------------


def medians(runs: Sequence[Result]) -> Result:
    """One tool's runs of a row as one: the median of each number, the last run's requests."""
    names = runs[-1].numbers
    numbers = {name: quantile([run.numbers[name] for run in runs], 0.5) for name in names}
    return Result(runs[-1].tool, numbers, runs[-1].requests)


def ratios(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Each tool's numbers divided by the bare loop's."""
    base = next((one.numbers for one in results if one.tool == "bare"), {})
    return {
        one.tool: {
            name: value / base[name] for name, value in one.numbers.items() if base.get(name)
        }
        for one in results
        if one.tool != "bare"
    }


def shown(row: str, results: Sequence[Result]) -> str:
    """The row as a table."""
    names = list(dict.fromkeys(name for one in results for name in one.numbers))
    compared = ratios(results)
    lines = [f"{row}: {(ROWS[row].__doc__ or '').splitlines()[0]}"]
    lines.append("  " + "".join(f"{name:>22}" for name in ["tool", *names]))
    for one in results:
        cells = []
        for name in names:
            value, ratio = one.numbers.get(name), compared.get(one.tool, {}).get(name)
            text = "-" if value is None else f"{value:.3g}"
            cells.append(f"{text} ({ratio:.2f}x)" if ratio is not None else text)
        lines.append("  " + "".join(f"{cell:>22}" for cell in [one.tool, *cells]))
    for one in results:
        kinds = ", ".join(f"{count} {what}" for what, count in sorted(one.requests.items()))
        lines.append(f"    {one.tool}: {kinds or 'no requests'}")
    return "\n".join(lines)


def _keep(row: str, results: Sequence[Result]) -> None:
    KEPT.parent.mkdir(exist_ok=True)
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    kept[row] = _document(results)
    KEPT.write_text(json.dumps(kept, indent=2) + "\n")


def _document(results: Sequence[Result]) -> dict[str, Any]:
    tools = {one.tool: {**one.numbers, "requests": one.requests} for one in results}
    load = os.getloadavg()[0]
    return {"tools": tools, "ratios": ratios(results), "load": load, "commit": commit()}


def main() -> None:
    """Run the rows that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--scale", type=float, default=1.0, help="of the rows' numbers")
    parser.add_argument("--samples", type=int, default=40, help="nodes in `latency`")
    parser.add_argument("--drains", type=int, default=20, help="nodes in `a-second`")
    parser.add_argument("--wakes", type=int, default=20, help="openings in `wake-up`")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each tool, medians are kept")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds to observe it idle")
    parser.add_argument("--tools", default=",".join(TOOLS), help="which, separated by commas")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    asked, tools = options.rows or list(ROWS), options.tools.split(",")
    wrong = sorted({*asked} - {*ROWS}) + sorted({*tools} - {*TOOLS})
    if wrong:
        parser.error(f"no such row or tool: {', '.join(wrong)}")
    spec = Spec(nodes=0, addons=(), kwok=0, audit=True)
    found = {}
    with (
        Cluster(CLUSTER, spec, lambda text: print(text, file=sys.stderr)) as cluster,
        tempfile.TemporaryDirectory() as folder,
    ):
        bench = Bench(Stage(cluster), Path(folder), options)
        for row in (name for name in ROWS if name in asked):
            print(f"{row} …", file=sys.stderr)
            able = [tool for tool in tools if tool in ONLY.get(row, TOOLS)]
            rounds = [[ROWS[row](bench, tool) for tool in able] for _ in range(options.repeat)]
            results = [medians(runs) for runs in zip(*rounds, strict=True)]
            found[row] = _document(results)
            _keep(row, results)
            if options.output == "table":
                print(shown(row, results), flush=True)
    if options.output == "json":
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
