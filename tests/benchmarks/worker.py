"""The worker beside the bare thing and beside Celery, Dramatiq and FastStream.

Messages a second with a handler that does nothing: each takes the same number of messages from a
quorum queue of the same real broker, one process, 32 at once, and publishes each answer with a
confirm before it acks (`tests.benchmarks.peers` has the job). `selfheal` is `selfheal-worker run`
with all that it does besides: parsing, checking, results, retries, breakers, metrics.

Through LangChain, with a model server that takes 50 ms: the worker beside its own chain in a thread
pool without a broker, beside plain HTTP, and with LangChain's structured output for the chain.

They take turns, because a machine is never as quiet as the last time; medians are shown, and ratios
count. The last run is kept in build/bench-worker.json.

    make bench-worker BENCH="[--rounds N] [--messages N] [--calls N] [-o json]"
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika

from tests.benchmarks.peers import TEXT, THREADS
from tests.benchmarks.report import commit
from tests.support.rabbit import Rabbit, Vhost, available
from tests.support.worker_process import WorkerProcess, command, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RESULTS = "feedback.results"
KEPT = Path("build/bench-worker.json")
QUEUES = {
    "bare": "feedback",
    "selfheal": "feedback",
    "celery": "bench-celery",
    "dramatiq": "bench-dramatiq",
    "faststream": "bench-faststream",
}

#: Plug-ins of the worker, found by their package's metadata as those of any package.
PLUGINS = """[selfheal.providers]
noop = tests.benchmarks.noop:Noop
structured = tests.benchmarks.structured:Structured
"""


@dataclass
class Figures:
    """The rounds of one contestant. cpu: microseconds of processor time a message."""

    per_second: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak_mib: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return statistics.median(self.per_second)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def rate(vhost: Vhost, messages: int, pid: int) -> tuple[float, float]:
    """Messages a second, and microseconds of the process's processor time for each, between a tenth
    and nine tenths of the way, as the results queue shows."""
    with vhost.channel() as channel:

        def count() -> int:
            return int(channel.queue_declare(RESULTS, passive=True).method.message_count)

        marks = []
        end = time.monotonic() + 300
        for part in (messages // 10, messages * 9 // 10):
            while (found := count()) < part:
                if time.monotonic() > end:
                    raise RuntimeError(f"{found} of {messages} answers in 300 s")
                time.sleep(0.005)
            marks.append((time.perf_counter(), found, cpu_seconds(pid)))
        (began, first, before), (ended, last, after) = marks
        while count() < messages:
            time.sleep(0.01)
    return (last - first) / (ended - began), (after - before) / (last - first) * 1e6


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


class Bench:
    """The broker, the model server, and one run of each contestant on them."""

    def __init__(self, folder: Path, vhost: Vhost, model: str, options: argparse.Namespace) -> None:
        self.folder = folder
        self.vhost = vhost
        self.model = model
        self.options = options
        self.templates: dict[str, tuple[bytes, Any]] = {}

    def environment(self, **more: Any) -> dict[str, str]:
        path = os.pathsep.join((str(self.folder), os.environ.get("PYTHONPATH", "")))
        base = {"CONCURRENCY": THREADS, "LOG_LEVEL": "info", "PYTHONPATH": path}
        return environment(self.vhost.uri, **base | more)

    def template(self, name: str) -> tuple[bytes, Any]:
        """A message as this contestant wants it: one of its own sending."""
        if name not in self.templates:
            if name in ("bare", "selfheal"):
                body = json.dumps({"id": "m0", "text": TEXT}).encode()
                self.templates[name] = body, pika.BasicProperties(delivery_mode=2)
            else:
                with self.peer(name, "--send-one") as process:
                    process.wait(60)
                with self.vhost.channel() as channel:
                    _, properties, body = channel.basic_get(QUEUES[name], auto_ack=True)
                assert body, f"{name} sent nothing"
                properties.headers = {
                    key: value
                    for key, value in (properties.headers or {}).items()
                    if not key.startswith("x-")
                }
                self.templates[name] = body, properties
        return self.templates[name]

    def fill(self, name: str, messages: int) -> None:
        body, properties = self.template(name)
        connection = pika.BlockingConnection(pika.URLParameters(self.vhost.uri))
        channel = connection.channel()
        channel.queue_purge(RESULTS)
        channel.queue_purge(QUEUES[name])  # what a peer took and did not ack is there again
        for _ in range(messages):
            channel.basic_publish("", QUEUES[name], body, properties)
        connection.close()
        self.vhost.wait_count(QUEUES[name], messages, 120)

    def peer(self, *argv: str, **more: str) -> subprocess.Popen[str]:
        env = os.environ | {"AMQP_URI": self.vhost.uri, "MODEL_BASE_URL": self.model} | more
        log = (self.folder / f"{argv[0]}.log").open("w")
        return subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.peers", *argv],
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=log,
        )

    def throughput(self, name: str, figures: Figures) -> None:
        """One round of a contestant that has nothing to do for each message."""
        self.fill(name, self.options.messages)
        if name == "selfheal":
            env = self.environment(MODEL_PROVIDER="noop")
            process: Any = WorkerProcess(env, self.folder / "selfheal.log").process
        else:
            process = self.peer(name)
        self.watch(process, self.options.messages, figures)

    def through_langchain(self, provider: str, figures: Figures) -> None:
        """One round of the worker with a model server that takes 50 ms."""
        self.fill("selfheal", self.options.calls)
        env = self.environment(
            MODEL_PROVIDER=provider, MODEL_NAME="tiny:1b", MODEL_BASE_URL=self.model
        )
        worker = WorkerProcess(env, self.folder / f"{provider}.log")
        self.watch(worker.process, self.options.calls, figures)

    def watch(self, process: Any, messages: int, figures: Figures) -> None:
        """Note what a process does with so many messages, and end it."""
        try:
            try:
                found, cpu = rate(self.vhost, messages, process.pid)
            except RuntimeError:
                for log in sorted(self.folder.glob("*.log")):
                    say(f"{log.name}: {log.read_text()[-2000:]}")
                raise
            figures.per_second.append(found)
            figures.cpu.append(cpu)
            figures.peak_mib.append(peak_mib(process.pid))
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)

    def without_a_broker(self, name: str, figures: Figures) -> None:
        """One round of a thread pool that only calls the model."""
        with self.peer(name, str(self.options.calls)) as process:
            assert process.stdout is not None
            found, cpu, peak = (float(word) for word in process.stdout.read().split())
        figures.per_second.append(found)
        figures.cpu.append(cpu)
        figures.peak_mib.append(peak)

    def start(self) -> tuple[float, float]:
        """Seconds from exec to ready with the embedded model, and peak memory in MiB then."""
        began = time.perf_counter()
        worker = WorkerProcess(environment(self.vhost.uri), self.folder / "start.log")
        try:
            worker.ready()
            return time.perf_counter() - began, peak_mib(worker.process.pid)
        finally:
            worker.terminate()


@contextmanager
def stage(folder: Path, options: argparse.Namespace) -> Iterator[Bench]:
    """A broker, a model server, and the plug-ins, while they are needed."""
    info = folder / "benchplugins-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: benchplugins\nVersion: 1\n")
    (info / "entry_points.txt").write_text(PLUGINS)
    broker = Rabbit(folder / "rabbit")
    model = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.peers", "model"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert model.stdout is not None
        at = f"http://127.0.0.1:{model.stdout.readline().strip()}"
        broker.start()
        vhost = broker.add_vhost("bench")
        bench = Bench(folder, vhost, at, options)
        done = command(bench.environment(), "topology")
        if done.returncode:
            raise RuntimeError(done.stderr)
        yield bench
    finally:
        model.kill()
        model.wait(10)
        broker.kill()


def measure(bench: Bench) -> dict[str, Any]:
    rounds = bench.options.rounds
    say(f"start to ready, {rounds} times")
    starts = [bench.start() for _ in range(rounds)]
    noop = {name: Figures() for name in QUEUES}
    model = {name: Figures() for name in ("http", "pool", "selfheal", "structured")}
    for number in range(rounds):
        for name, figures in noop.items():
            bench.throughput(name, figures)
            say(f"round {number + 1}: {name} {figures.per_second[-1]:,.0f} messages/s")
        for name in ("http", "pool"):
            bench.without_a_broker(name, model[name])
            say(f"round {number + 1}: 50 ms model, {name} {model[name].per_second[-1]:,.0f}/s")
        for name, provider in (("selfheal", "ollama"), ("structured", "structured")):
            bench.through_langchain(provider, model[name])
            say(f"round {number + 1}: 50 ms model, {name} {model[name].per_second[-1]:,.0f}/s")
    return {
        "commit": commit(),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "in_flight": THREADS,
        "messages": bench.options.messages,
        "calls": bench.options.calls,
        "noop": {name: asdict(one) for name, one in noop.items()},
        "model_50_ms": {name: asdict(one) for name, one in model.items()},
        "start_to_ready_seconds": [round(seconds, 3) for seconds, _ in starts],
        "builtin_peak_mib": [round(mib, 1) for _, mib in starts],
        "ratios": {
            "noop_to_bare": _ratio(noop["selfheal"], noop["bare"]),
            **{f"noop_to_{name}": _ratio(noop["selfheal"], noop[name]) for name in list(noop)[2:]},
            "model_to_pool": _ratio(model["selfheal"], model["pool"]),
            "model_to_structured": _ratio(model["selfheal"], model["structured"]),
        },
    }


def _ratio(one: Figures, other: Figures) -> float:
    return round(one.rate / other.rate, 3)


def table(result: dict[str, Any]) -> Iterator[str]:
    """The result for people."""
    yield (
        f"{result['cores']} cores, load average {result['load_average']:.1f}; "
        f"{result['in_flight']} in flight, one process, quorum queues, loopback; medians"
    )
    ideal = result["in_flight"] / 0.05
    yield from _section(
        f"no-op handler, confirmed publish, ack ({result['messages']:,} messages)",
        result["noop"],
        "bare",
        "the ideal is the bare loop",
    )
    yield from _section(
        f"50 ms model ({result['calls']:,} calls)",
        result["model_50_ms"],
        "pool",
        f"the ideal is {ideal:,.0f}/s; http and pool have no broker",
    )
    ratios = result["ratios"]
    yield ""
    for said, found, goal in (
        ("no-op, to the bare loop", ratios["noop_to_bare"], "at least 0.9"),
        ("50 ms model, to its chain in a thread pool", ratios["model_to_pool"], "at least 0.6"),
        ("50 ms model, to structured output", ratios["model_to_structured"], "at least 1.8"),
        (
            "start to ready with builtin, s",
            statistics.median(result["start_to_ready_seconds"]),
            "at most 1.0",
        ),
        ("memory then, MiB", max(result["builtin_peak_mib"]), "at most 64"),
    ):
        yield f"  {said:44} {found:8.2f}   goal {goal}"


def _section(
    title: str, rows: dict[str, dict[str, Sequence[float]]], beside: str, note: str
) -> Iterator[str]:
    yield f"\n{title}; {note}"
    yield f"  {'':12} {'per second':>10} {f'to {beside}':>10} {'CPU µs':>8} {'peak MiB':>9}"
    base = statistics.median(rows[beside]["per_second"])
    for name, one in rows.items():
        found = statistics.median(one["per_second"])
        peak = f"{max(one['peak_mib']):9.0f}" if one["peak_mib"] else f"{'':9}"
        cpu = statistics.median(one["cpu"])
        yield f"  {name:12} {found:10,.0f} {found / base:10.2f} {cpu:8,.0f} {peak}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=20_000, help="without a model (20000)")
    parser.add_argument("--calls", type=int, default=3_000, help="with the 50 ms model (3000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    if why := available():
        print(why, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        with stage(Path(name), options) as bench:
            result = measure(bench)
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result) if options.output == "json" else "\n".join(table(result)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
