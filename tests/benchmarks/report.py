"""One page of all benchmarks: BENCHMARKS.md and, beside it, the numbers and the plots in docs/.

Reads what the last runs kept in build/ (`make bench` runs them); what was not run there is as it
was, and what was never measured is said.

    python -m tests.benchmarks.report
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ci.versions import pin

ROOT = Path(__file__).resolve().parents[2]
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Row:
    """One number of ours beside others'. `goal`: what is asked for: of the ratio to the first
    peer as `>=0.9x`, of the number itself as `<=80`; empty = nothing."""

    what: str
    unit: str
    ours: float
    peers: Mapping[str, float]
    ideal: str = ""
    goal: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours to the first peer."""
        first = next(iter(self.peers.values()), None)
        return self.ours / first if first else None

    @property
    def reached(self) -> bool | None:
        """Whether the goal is; None without one."""
        if not self.goal:
            return None
        measured = self.ratio if self.goal.endswith("x") else self.ours
        if measured is None:
            return None
        limit = float(self.goal[2:].removesuffix("x"))
        return measured >= limit if self.goal.startswith(">=") else measured <= limit


# -- growth -----------------------------------------------------------------------------------


def exponent(points: Points) -> float:
    """The k of y = c·x^k that fits best (least squares of the logarithms)."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    mean_x = statistics.fmean(x for x, _ in logs)
    mean_y = statistics.fmean(y for _, y in logs)
    spread = sum((x - mean_x) ** 2 for x, _ in logs)
    if not spread:
        raise ValueError("two different x are needed to see how something grows")
    return sum((x - mean_x) * (y - mean_y) for x, y in logs) / spread


_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 640, 400, 70, 40, 50


def plot(title: str, x_title: str, y_title: str, series: Mapping[str, Points]) -> str:
    """Lines in a plane with logarithmic axes, as SVG."""
    every = [point for points in series.values() for point in points]
    x_low, x_high = _decades([x for x, _ in every])
    y_low, y_high = _decades([y for _, y in every])

    def at(x: float, y: float) -> tuple[float, float]:
        right, floor = _WIDTH - 160, _HEIGHT - _BOTTOM
        return (
            _LEFT + (math.log10(x) - x_low) / (x_high - x_low) * (right - _LEFT),
            floor - (math.log10(y) - y_low) / (y_high - y_low) * (floor - _TOP),
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">{_escaped(title)}</text>',
        f'<text x="{_LEFT}" y="{_HEIGHT - 12}">{_escaped(x_title)}</text>',
        f'<text x="14" y="{_HEIGHT - _BOTTOM}" transform="rotate(-90 14 {_HEIGHT - _BOTTOM})">'
        f"{_escaped(y_title)}</text>",
    ]
    for power in range(x_low, x_high + 1):
        (x, low), (_, high) = at(10**power, 10**y_low), at(10**power, 10**y_high)
        parts.append(_line([(x, low), (x, high)], "#ddd", 1))
        parts.append(f'<text x="{x:.1f}" y="{low + 16:.1f}" text-anchor="middle">{_short(power)}')
        parts.append("</text>")
    for power in range(y_low, y_high + 1):
        (left, y), (right, _) = at(10**x_low, 10**power), at(10**x_high, 10**power)
        parts.append(_line([(left, y), (right, y)], "#ddd", 1))
        parts.append(f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{_short(power)}')
        parts.append("</text>")
    for number, (name, points) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [at(x, y) for x, y in sorted(points)]
        parts.append(_line(places, colour, 2))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        parts.append(
            f'<text x="{_WIDTH - 150}" y="{_TOP + 18 * number + 12}" fill="{colour}">'
            f"{_escaped(name)}</text>"
        )
    return "\n".join([*parts, "</svg>", ""])


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _line(places: Sequence[tuple[float, float]], colour: str, width: int) -> str:
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _short(power: int) -> str:
    return f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


# -- what was measured ------------------------------------------------------------------------


#: On cores that the broker, the model server and the worker share; pinned to a core each, 0.85.
_TO_CHAIN = ">=0.6x"


def worker_rows(kept: Mapping[str, Any]) -> Iterator[Row]:
    """From build/bench-worker.json."""

    def rates(part: str) -> dict[str, float]:
        return {name: statistics.median(one["per_second"]) for name, one in kept[part].items()}

    noop, model = rates("noop"), rates("model_50_ms")
    ours = noop.pop("selfheal")
    ideal = "the bare loop"
    yield Row("no-op handler, confirmed publish, ack", "messages/s", ours, noop, ideal, ">=0.9x")
    ours, in_flight = model.pop("selfheal"), kept["in_flight"]
    ideal = f"{in_flight / 0.05:,.0f}"
    chain = {"its chain in a bare thread pool": model["pool"], "plain HTTP": model["http"]}
    what = f"50 ms model, {in_flight} in flight, through LangChain"
    yield Row(what, "messages/s", ours, chain, ideal, _TO_CHAIN)
    structured = {"with_structured_output": model["structured"]}
    yield Row(what, "messages/s", ours, structured, ideal, ">=1.8x")
    started = statistics.median(kept["start_to_ready_seconds"])
    yield Row("start to ready, embedded model", "s", started, {}, "", "<=1")
    yield Row("memory then, peak", "MiB", max(kept["builtin_peak_mib"]), {}, "", "<=64")


#: Row and number of build/bench-remediator.json → what it is, its unit, the goal.
_REMEDIATOR = (
    ("latency", "p50_ms", "condition to cordon, one node each 0.5 s, p50", "ms", "<=1.2x"),
    ("latency", "p99_ms", "the same, p99", "ms", "<=1.5x"),
    ("latency-5000", "p50_ms", "the same of 5,000 nodes, p50", "ms", ""),
    ("latency-5000", "p99_ms", "the same of 5,000 nodes, p99", "ms", ""),
    ("for", "late_p50_ms", "a rule with `for: 2s`: cordoned so much later, p50", "ms", "<=50"),
    ("for", "late_p99_ms", "the same, p99", "ms", ""),
    ("hanging", "p50_ms", "while 100 evictions hang for 12 s each: to the cordon, p50", "ms", ""),
    ("hanging", "worst_ms", "the same, the slowest", "ms", "<=1000"),
    ("burst-100", "after_last_s", "100 nodes bad at once: the last cordon", "s", "<=1.3x"),
    ("burst-500", "after_last_s", "500 nodes bad at once: the last cordon", "s", "<=1.3x"),
    ("a-second", "p50_s", "a bad node a second, 10 pods each: to empty, p50", "s", "<=1.15x"),
    ("a-second", "posts_per_pod", "the same: evictions asked for a pod", "", "<=1.1"),
    ("a-second", "gets_per_pod", "the same: reads a pod", "", "<=0"),
    ("a-second", "beyond_pods_per_node", "the same: requests a node beyond pods", "", "<=5"),
    ("drain-50", "all_empty_s", "50 nodes with 500 pods at once: all empty", "s", "<=1.2x"),
    ("drain-150", "all_empty_s", "150 nodes with 2,250 pods at once: all empty", "s", "<=1.2x"),
    ("budget", "empty_s", "20 pods behind maxUnavailable 1: empty", "s", "<=1.1x"),
    ("budget", "posts_per_pod", "the same: evictions asked for a pod", "", "<=2"),
    ("wake-up", "p50_ms", "a budget opens: the next pod goes, p50", "ms", "<=200"),
    ("wake-up", "p99_ms", "the same, p99", "ms", "<=200"),
    ("idle-1000", "peak_mib", "1,000 nodes: peak memory", "MiB", "<=64"),
    ("idle-1000", "requests_per_s", "1,000 nodes, idle: requests a second", "", "<=0.3"),
    ("idle-1000", "cpu_s_per_minute", "1,000 nodes, idle: processor a minute", "s", "<=0.5"),
    ("idle-5000", "peak_mib", "5,000 nodes, 20,000 pods: peak memory", "MiB", "<=80"),
    ("idle-5000", "requests_per_s", "5,000 nodes, idle: requests a second", "", "<=0.3"),
    ("idle-5000", "cpu_s_per_minute", "5,000 nodes, idle: processor a minute", "s", "<=0.5"),
)


def remediator_rows(kept: Mapping[str, Any]) -> Iterator[Row]:
    """From build/bench-remediator.json; rows that were not run are left out."""
    for row, number_, what, unit, goal in _REMEDIATOR:
        tools = kept.get(row, {}).get("tools", {})
        if number_ not in tools.get("selfheal", {}):
            continue
        names = {"bare": "bare watch loop", "kubectl": "kubectl"}
        peers = {
            named: tools[name][number_]
            for name, named in names.items()
            if number_ in tools.get(name, {})
        }
        yield Row(what, unit, tools["selfheal"][number_], peers, "", goal)


#: Number of build/bench-simulation.json → what it is, its unit.
_SIMULATION = (
    ("node_hours_per_s", "remediator: node-hours in a second", "node-hours/s"),
    ("remediator_cpu_s_per_seed", "the same: processor a seed", "s"),
    ("messages_per_s", "worker: messages in a second", "messages/s"),
    ("worker_cpu_s_per_seed", "the same: processor a seed", "s"),
)


def simulation_rows(kept: Mapping[str, Any]) -> Iterator[Row]:
    """From build/bench-simulation.json."""
    for name, what, unit in _SIMULATION:
        yield Row(what, unit, kept[name], {})


#: What grows with what: rows, their sizes, the number, what it is.
_AMONG = {"latency-100": 100, "latency": 1000, "latency-5000": 5000}
_ON_A_NODE = {"pods-10": 10, "pods-50": 50, "pods-200": 200}
_GROWTH = (
    ("nodes", _AMONG, "p50_ms", "ms from condition to cordon"),
    ("nodes", _AMONG, "calls", "requests while 40 nodes are cordoned"),
    ("nodes", {"idle-100": 100, "idle-1000": 1000, "idle-5000": 5000}, "peak_mib", "MiB, peak"),
    (
        "nodes bad at once",
        {"burst-100": 100, "burst-500": 500},
        "from_first_s",
        "s to all cordoned",
    ),
    ("pods on a node", _ON_A_NODE, "empty_s", "s to empty"),
    ("pods on a node", _ON_A_NODE, "calls", "requests to empty it"),
    ("pods to evict", {"drain-50": 500, "drain-150": 2250}, "all_empty_s", "s to all empty"),
)


def remediator_growth(kept: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Points]]]:
    """(what grows, with what, points by tool) where at least two sizes were measured."""
    for along, sizes, number_, what in _GROWTH:
        series: dict[str, Points] = {}
        for tool in ("selfheal", "bare", "kubectl"):
            found = [
                (float(size), float(kept[row]["tools"][tool][number_]))
                for row, size in sizes.items()
                if kept.get(row, {}).get("tools", {}).get(tool, {}).get(number_, 0) > 0
            ]
            if len(found) > 1:
                series[tool] = found
        if "selfheal" in series:
            yield what, along, series


def table(rows: Sequence[Row]) -> Iterator[str]:
    """As Markdown."""
    yield "| | ours | beside | ratio | ideal | goal |"
    yield "|---|---:|---|---:|---|---|"
    for row in rows:
        peers = ", ".join(f"{name} {number(value)}" for name, value in row.peers.items())
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        reached = {None: "", True: ", reached", False: ", **not reached**"}[row.reached]
        goal = f"{row.goal.replace('>=', '≥').replace('<=', '≤').replace('x', ' ×')}{reached}"
        cells = (row.what, f"{number(row.ours)} {row.unit}", peers, ratio, row.ideal, goal)
        yield f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    """Three digits that matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def machine() -> dict[str, str]:
    """What the numbers were measured on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in _lines("/proc/cpuinfo")
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo")), 0)
    return {
        "processor": f"{os.cpu_count()} × {cpu}",
        "memory": f"{memory / 2**20:.1f} GiB",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "kubernetes": pin("go", "kubernetes"),
        "rabbitmq": pin("debian", "rabbitmq"),
        "commit": commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def commit() -> str:
    """What is measured now."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def kept(name: str) -> Any:
    """What build/bench-<name>.json holds; None when it was not measured."""
    file = ROOT / f"build/bench-{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def _committed() -> dict[str, Any]:
    """What the numbers in docs/ hold."""
    file = ROOT / "docs" / "benchmarks.json"
    return dict(json.loads(file.read_text())["measured"]) if file.exists() else {}


def together(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured `now`, and `before` what was not; of the remediator row by row."""
    rows = {**before.get("remediator", {}), **now.get("remediator", {})}
    return {**before, **now} | ({"remediator": rows} if rows else {})


def commits(measured: object) -> Iterator[str]:
    """All that measurements say of the commit that they are of."""
    if isinstance(measured, Mapping):
        for key, value in measured.items():
            if key == "commit":
                yield value
            else:
                yield from commits(value)


def page(about: Mapping[str, str], measured: Mapping[str, Any]) -> Iterator[str]:
    """BENCHMARKS.md, line by line."""
    yield "# Benchmarks"
    yield ""
    yield "Written by `make bench`; all of it takes an hour. What stands in one line was"
    yield "measured in one run, in turns: compare the ratios, the rates are those of this machine."
    yield "The numbers are in [docs/benchmarks.json](docs/benchmarks.json); why some goals are not"
    yield "reached is in [docs/performance.md](docs/performance.md)."
    yield ""
    yield from (f"- {name}: {value}" for name, value in about.items())
    yield ""
    yield "## Worker"
    yield ""
    if found := measured.get("worker"):
        yield f"Quorum queues, a real RabbitMQ, {found['in_flight']} in flight, one process;"
        yield f"load average of the machine {found['load_average']:.1f} on {found['cores']} cores."
        yield ""
        yield from table(list(worker_rows(found)))
    else:
        yield "Not measured: `make bench-worker`."
    yield ""
    yield from _growth(measured.get("growth"))
    yield "## Remediator"
    yield ""
    if found := measured.get("remediator"):
        yield "A real API server with KWOK's nodes, times by an observer's watch, limits open."
        yield f"Load average {max(one['load'] for one in found.values()):.1f}."
        yield ""
        yield from table(list(remediator_rows(found)))
        yield ""
        for number_, (what, along, series) in enumerate(remediator_growth(found), 1):
            powers = ", ".join(f"{tool} n^{exponent(p):.2f}" for tool, p in series.items())
            yield f"{what}, by {along}: {powers}."
            yield f"![{what} by {along}](docs/growth-remediator-{number_}.svg)"
            yield ""
    else:
        yield "Not measured: `make bench-remediator`."
        yield ""
    yield "## Simulation"
    yield ""
    if found := measured.get("simulation"):
        yield f"{found['seeds']} seeds of each side, one process; load average"
        yield f"{found['load_average']:.1f}. See [docs/simulation.md](docs/simulation.md)."
        yield ""
        yield from table(list(simulation_rows(found)))
    else:
        yield "Not measured: `make bench-simulation`."
    yield ""


def _growth(found: Mapping[str, Any] | None) -> Iterator[str]:
    yield "### How it grows"
    yield ""
    if not found:
        yield "Not measured: `ci/bench tests.benchmarks.growth`."
        yield ""
        return
    flights, processes = found["in_flight"], found["processes"]
    ideal = [(count, count / found["model_seconds"]) for count, _ in flights]
    few = [point for point in flights if point[0] <= 16]
    yield f"Messages a second grow with the calls in flight as n^{exponent(few):.2f} up to 16 and"
    yield f"as n^{exponent(flights):.2f} up to {flights[-1][0]} (ideal: n^1),"
    yield f"and with the processes as n^{exponent(processes):.2f} on {found['cores']} cores."
    yield ""
    yield "| in flight | messages/s | of the ideal |"
    yield "|---:|---:|---:|"
    for (count, rate), (_, most) in zip(flights, ideal, strict=True):
        yield f"| {count} | {number(rate)} | {rate / most:.0%} |"
    yield ""
    yield "![messages a second by calls in flight](docs/growth-in-flight.svg)"
    yield "![messages a second by processes](docs/growth-processes.svg)"
    yield ""


def plots(measured: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """File name and SVG of each."""
    for number_, (what, along, series) in enumerate(
        remediator_growth(measured.get("remediator", {})), 1
    ):
        yield f"growth-remediator-{number_}.svg", plot("Remediator", along, what, series)
    found = measured.get("growth")
    if not found:
        return
    flights = [(float(x), float(y)) for x, y in found["in_flight"]]
    ideal = [(x, x / found["model_seconds"]) for x, _ in flights]
    title = "Worker, a model that takes 50 ms"
    lines = {"selfheal": flights, "ideal": ideal}
    yield "growth-in-flight.svg", plot(title, "calls in flight", "messages/s", lines)
    processes = [(float(x), float(y)) for x, y in found["processes"]]
    title = "Worker, a handler that does nothing"
    yield "growth-processes.svg", plot(title, "processes", "messages/s", {"selfheal": processes})


def main() -> int:
    """Writes the page, the numbers and the plots."""
    names = ("worker", "growth", "remediator", "healing", "simulation")
    measured = together(_committed(), {name: found for name in names if (found := kept(name))})
    about = machine()
    about["commit"] = ", ".join(sorted({*commits(measured)})) or about["commit"]
    docs = ROOT / "docs"
    docs.mkdir(exist_ok=True)
    rows = [asdict(row) for row in worker_rows(measured["worker"])] if "worker" in measured else []
    rows += [asdict(row) for row in remediator_rows(measured.get("remediator", {}))]
    if "simulation" in measured:
        rows += [asdict(row) for row in simulation_rows(measured["simulation"])]
    everything = {"machine": about, "rows": rows, "measured": measured}
    (docs / "benchmarks.json").write_text(json.dumps(everything, indent=1) + "\n")
    for name, text in plots(measured):
        (docs / name).write_text(text)
    (ROOT / "BENCHMARKS.md").write_text("\n".join(page(about, measured)))
    sys.stdout.write(f"BENCHMARKS.md, docs/benchmarks.json; measured: {', '.join(measured)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
