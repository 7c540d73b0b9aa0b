"""What the worker costs beside the bare thing: messages a second with a model that does nothing.

Both take the same messages from a quorum queue of the same real broker, pass each through one of
32 threads, publish the answer to a quorum queue with mandatory and confirm, and ack then. `bare`
is the least that does this with pika's SelectConnection; `selfheal` is `selfheal-worker run` with
all that it does besides (parsing, checking, results, retries, breakers, metrics). They take turns,
because a machine is never as quiet as the last time.

    python -m tests.benchmarks.worker_throughput [--messages N] [--rounds N] [--json FILE]
"""

# ruff: noqa: T201
from __future__ import annotations

import argparse
import json
import os
import queue
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika
from pika.adapters.select_connection import SelectConnection

from tests.broker.process import WorkerProcess, environment
from tests.broker.rabbit import Rabbit, Vhost, available

if TYPE_CHECKING:
    from collections.abc import Sequence

THREADS = 32
BODY = {"text": "The delivery came on time, and everything works as it should. Thank you!"}

NOOP = """
from worker.model import Answer
ANSWER = Answer({"primary_emotion": "Joy", "sentiment": "Positive", "confidence_score": 0.9,
                 "key_phrases": ["Thank you"]})

class Noop:
    name, model, version = "noop", "none", "1"
    def warm_up(self): pass
    def close(self): pass
    def analyse(self, text, deadline): return ANSWER

def build(config): return Noop()
"""


class Bare:
    """The least loop: consume, a thread, confirmed publish, ack. Ends after so many acks."""

    def __init__(self, uri: str, messages: int) -> None:
        self.messages = messages
        self.work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.done: deque[Any] = deque()
        self.woken = False
        self.waiting: dict[int, int] = {}
        self.next_tag = 1
        self.acked = 0
        self.properties = pika.BasicProperties(content_type="application/json", delivery_mode=2)
        self.connection = SelectConnection(
            pika.URLParameters(uri),
            on_open_callback=lambda made: made.channel(on_open_callback=self.opened),
            on_close_callback=lambda made, _: made.ioloop.stop(),
        )

    def run(self) -> None:
        for _ in range(THREADS):
            threading.Thread(target=self.serve, daemon=True).start()
        self.connection.ioloop.start()

    def opened(self, channel: Any) -> None:
        self.channel = channel
        channel.confirm_delivery(self.confirmed)
        channel.basic_qos(prefetch_count=THREADS)
        channel.basic_consume(
            "feedback", lambda _, method, __, body: self.work.put((method.delivery_tag, body))
        )

    def serve(self) -> None:
        while True:
            self.done.append(self.work.get())
            if not self.woken:
                self.woken = True
                self.connection.ioloop.add_callback_threadsafe(self.collect)

    def collect(self) -> None:
        self.woken = False
        while self.done:
            tag, body = self.done.popleft()
            publish = self.channel.basic_publish
            publish("", "feedback.results", body, self.properties, mandatory=True)
            self.waiting[self.next_tag] = tag
            self.next_tag += 1

    def confirmed(self, frame: Any) -> None:
        tags = [frame.method.delivery_tag]
        if frame.method.multiple:
            tags = [tag for tag in self.waiting if tag <= tags[0]]
        for tag in tags:
            self.channel.basic_ack(self.waiting.pop(tag))
        self.acked += len(tags)
        if self.acked >= self.messages:
            self.connection.close()


def fill(vhost: Vhost, messages: int) -> None:
    """Put messages into the queue, without waiting for each confirm."""
    connection = pika.BlockingConnection(pika.URLParameters(vhost.uri))
    channel = connection.channel()
    channel.queue_purge("feedback.results")
    for number in range(messages):
        body = json.dumps({"id": f"m{number}", **BODY}).encode()
        channel.basic_publish("", "feedback", body, pika.BasicProperties(delivery_mode=2))
    connection.close()
    vhost.wait_count("feedback", messages, 120)


def rate(vhost: Vhost, messages: int) -> float:
    """Messages a second between a tenth and nine tenths of the way, as the results queue shows."""
    with vhost.channel() as channel:

        def count() -> int:
            found = channel.queue_declare("feedback.results", passive=True)
            return int(found.method.message_count)

        marks = []
        for part in (messages // 10, messages * 9 // 10):
            while (found := count()) < part:
                time.sleep(0.005)
            marks.append((time.perf_counter(), found))
        (began, first), (ended, last) = marks
        while count() < messages:
            time.sleep(0.01)
    return (last - first) / (ended - began)


def children_cpu() -> float:
    """Seconds of processor time of all processes of ours that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_bare(vhost: Vhost, messages: int) -> tuple[float, float]:
    """The rate, and microseconds of processor time a message."""
    fill(vhost, messages)
    before = children_cpu()
    with subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.worker_throughput", "--bare", str(messages)],
        env=os.environ | {"AMQP_URI": vhost.uri},
    ) as process:
        found = rate(vhost, messages)
        process.wait(30)
    return found, (children_cpu() - before) / messages * 1e6


def run_selfheal(vhost: Vhost, messages: int, folder: Path) -> tuple[float, float, float]:
    """The rate, microseconds of processor time a message, and peak memory in MiB."""
    env = environment(
        vhost.uri,
        PYTHONPATH=folder,
        MODEL_PROVIDER="noop",
        CONCURRENCY=THREADS,
        LOG_LEVEL="info",
    )
    fill(vhost, messages)
    before = children_cpu()
    worker = WorkerProcess(env, folder / "log")
    try:
        found = rate(vhost, messages)
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    finally:
        worker.terminate()
    return found, (children_cpu() - before) / messages * 1e6, peak


def start_to_ready(vhost: Vhost, folder: Path) -> tuple[float, float]:
    """Seconds from exec to ready with the embedded model, and memory in MiB then."""
    began = time.perf_counter()
    worker = WorkerProcess(environment(vhost.uri), folder / "log")
    try:
        worker.ready()
        seconds = time.perf_counter() - began
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
    finally:
        worker.terminate()
    return seconds, int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        Bare(os.environ["AMQP_URI"], options.bare).run()
        return 0
    if why := available():
        print(why, file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as name:
        return measure(Path(name), options)


def _median(runs: Sequence[Sequence[float]], which: int) -> float:
    return statistics.median(one[which] for one in runs)


def measure(folder: Path, options: argparse.Namespace) -> int:
    (folder / "noop.py").write_text(NOOP)
    info = folder / "noop-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noop\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[selfheal.providers]\nnoop = noop:build\n")
    broker = Rabbit(folder / "rabbit")
    (folder / "rabbit").chmod(0o755)
    try:
        broker.start()
        vhost = broker.add_vhost("bench")
        starts = [start_to_ready(vhost, folder) for _ in range(options.rounds)]
        bares, ours = [], []
        for number in range(options.rounds):
            bares.append(run_bare(vhost, options.messages))
            ours.append(run_selfheal(vhost, options.messages, folder))
            print(
                f"round {number + 1}: bare {bares[-1][0]:,.0f}/s, {bares[-1][1]:.0f} µs CPU each; "
                f"selfheal {ours[-1][0]:,.0f}/s, {ours[-1][1]:.0f} µs CPU each"
            )
    finally:
        broker.kill()
    result = {
        "messages": options.messages,
        "threads": THREADS,
        "cores": os.cpu_count(),
        "bare_per_second": [round(one[0]) for one in bares],
        "selfheal_per_second": [round(one[0]) for one in ours],
        "bare_cpu_us": [round(one[1]) for one in bares],
        "selfheal_cpu_us": [round(one[1]) for one in ours],
        "ratio": round(_median(ours, 0) / _median(bares, 0), 3),
        "peak_mib_under_load": round(max(one[2] for one in ours), 1),
        "start_to_ready_seconds": round(statistics.median(one for one, _ in starts), 2),
        "builtin_peak_mib": round(max(one for _, one in starts), 1),
    }
    print(
        "no-op handler, confirmed publish + ack: "
        f"{result['ratio']:.2f} of the bare loop (goal 0.9)\n"
        f"start to ready with builtin: {result['start_to_ready_seconds']} s (goal 1.5), "
        f"{result['builtin_peak_mib']} MiB (goal 80)"
    )
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
