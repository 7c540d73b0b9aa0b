"""Seeded faults on real workers, a real broker and the wire between them: nothing is lost.

Every message that was published ends as a result or a dead letter. A message may end twice only
when a fault hit it between its result's confirm and its ack, so duplicates are at most what could
be in flight at the faults. A broker of each line, with workers of its own, goes through its faults
beside the other, each with a seed of its own; the first is printed, and `CHAOS_SEED=n
CHAOS_FAULTS=n` replays a run: the same faults in the same order.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pika
import pytest

from tests.support.fake_ollama import GOOD, FakeOllama, Reply
from tests.support.rabbit import LINES, PASSWORD, USER, Rabbit, Vhost, available
from tests.support.tcp_proxy import Proxy
from tests.support.worker_process import WorkerProcess, environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.chaos, pytest.mark.broker]

LONG = bool(os.environ.get("SELFHEAL_LONG"))
FAULTS = int(os.environ.get("CHAOS_FAULTS", "1000" if LONG else "60"))
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
WORKERS = 3
CONCURRENCY = 8
MODEL_SECONDS = 0.4  # so that most of what can be in flight is, and the machine has time for it
PUBLISHERS = 3
BACKLOG = 150  # messages ready, from which on the publishers wait: the work ends with the faults
# Nothing waits for as long unless the machine is swamped, and then it is no failure.
PATIENCE = 600.0
# How many of each there are, of a hundred.
KINDS = {
    "cut": 28,
    "half open": 4,
    "sigkill": 16,
    "sigterm": 16,
    "model errors": 10,
    "model slow": 6,
    "model away": 10,
    "broker kill": 5,
    "broker restart": 5,
}


class Publisher(threading.Thread):
    """Publishes numbered messages with confirms, one in fifty of them poison, until stopped."""

    def __init__(self, vhost: Vhost, name: str) -> None:
        super().__init__(daemon=True)
        self.vhost = vhost
        self.prefix = name
        self.tried: set[str] = set()
        self.published: set[str] = set()
        self.poison: set[str] = set()
        self.uncertain = 0
        self.stopping = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            try:
                with self.vhost.channel() as channel:
                    while not self.stopping.wait(0.01):
                        if number % 20 == 0 and self.too_many(channel):
                            continue
                        self.publish(channel, f"{self.prefix}{number}", poison=number % 50 == 49)
                        number += 1
            except (OSError, pika.exceptions.AMQPError):
                # Its confirm did not come: it may be there or not, and goes once more.
                self.uncertain += 1
                time.sleep(0.2)

    def too_many(self, channel: Any) -> bool:
        ready = channel.queue_declare("feedback", passive=True).method.message_count
        return bool(ready >= BACKLOG) and not self.stopping.wait(0.1)

    def publish(self, channel: Any, name: str, *, poison: bool) -> None:
        body = "{" if poison else json.dumps({"id": name, "text": f"I love it {name}"})
        self.tried.add(name)
        channel.basic_publish(
            "",
            "feedback",
            body.encode(),
            pika.BasicProperties(delivery_mode=2, message_id=name),
            mandatory=True,
        )
        self.published.add(name)
        if poison:
            self.poison.add(name)


class Stage:
    """Broker, proxy, model and workers, and what can be done to them."""

    def __init__(self, folder: Path, line: str, randomness: random.Random) -> None:
        self.random = randomness
        self.of_calls = random.Random(randomness.random())  # drawn from by the model's threads
        self.folder = folder
        folder.mkdir()
        self.rabbit = Rabbit(folder / "rabbit", line=line)
        self.model = FakeOllama().start()
        self.workers: list[WorkerProcess] = []
        self.started = 0
        self.statuses: list[int] = []
        self.doubled = 0  # what may have been between confirm and ack at the faults

    def open(self) -> None:
        self.rabbit.start()
        self.vhost = self.rabbit.add_vhost("chaos")
        self.proxy = Proxy(self.rabbit.amqp)
        for _ in range(WORKERS):
            self.start_worker()
        for worker in self.workers:
            worker.ready(PATIENCE)
        # RabbitMQ 3.10 that is killed in the second in which a queue is declared leaves it without
        # a leader for good (`ra:trigger_election` repairs it): not what is tested here.
        end = time.monotonic() + PATIENCE
        while not all("messages" in one for one in self.queues().values()):
            assert time.monotonic() < end, "a queue has no leader"
            time.sleep(0.5)

    def queues(self) -> dict[str, Any]:
        """What the broker knows of each queue."""
        return {one["name"]: one for one in self.rabbit.api("GET", f"queues/{self.vhost.name}")}

    def start_worker(self) -> None:
        uri = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{self.proxy.port}/{self.vhost.name}"
        env = environment(
            uri,
            **{**self.model.env, "MODEL_DEADLINE": 3},
            CONCURRENCY=CONCURRENCY,
            SHUTDOWN_GRACE=5,
            AMQP_HEARTBEAT=4,
            LOG_LEVEL="info",
        )
        self.started += 1
        self.workers.append(WorkerProcess(env, self.folder / f"worker-{self.started}.log"))

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.model.stop()
        self.proxy.close()
        self.rabbit.kill()

    def fault(self, kind: str) -> None:
        # Mostly into the middle of work; else whatever is under way, such as the last one's end.
        if kind == "half open" or self.random.random() < 0.7:
            self.wait_until_busy()
        getattr(self, kind.replace(" ", "_"))()

    def wait_until_busy(self) -> None:
        """Until a worker that is connected has messages in flight."""
        end = time.monotonic() + PATIENCE
        while not any(one.ready_now() and one.progress()["in_flight"] for one in self.workers):
            assert time.monotonic() < end, "nothing is in flight any more"
            time.sleep(0.1)

    def cut(self) -> None:
        self.doubled += WORKERS * CONCURRENCY
        self.proxy.cut()
        time.sleep(self.random.uniform(0.1, 0.8))

    def half_open(self) -> None:
        """Nothing comes through any more, without notice: the heartbeats have to find it."""
        self.doubled += WORKERS * CONCURRENCY
        self.proxy.freeze()
        end = time.monotonic() + PATIENCE
        while not self.proxy.given_up():
            assert time.monotonic() < end, "a half-open wire was not found"
            time.sleep(0.1)
        self.proxy.cut()

    def sigkill(self) -> None:
        self.doubled += CONCURRENCY
        self.workers.pop(self.random.randrange(WORKERS)).kill()
        self.start_worker()

    def sigterm(self) -> None:
        worker = self.workers.pop(self.random.randrange(WORKERS))
        # Before, Python itself has not got far enough to listen.
        worker.wait_event("started", PATIENCE)
        worker.process.send_signal(signal.SIGTERM)
        self.start_worker()
        self.statuses.append(worker.process.wait(PATIENCE))

    def model_errors(self) -> None:
        status = self.random.choice([429, 500, 503])
        slow = self.random.choice([0.0, 0.0, 4.0])
        rate = self.random.uniform(0.2, 0.9)
        self.model.decide = lambda text: (
            Reply(status=status, delay=slow) if self.of_calls.random() < rate else good(text)
        )
        time.sleep(self.random.uniform(0.3, 1.5))
        self.model.decide = good

    def model_slow(self) -> None:
        """Some calls pass their deadline of 3 s."""
        self.model.decide = lambda text: Reply(GOOD, delay=self.of_calls.uniform(0.5, 4.0))
        time.sleep(self.random.uniform(0.5, 2.0))
        self.model.decide = good

    def model_away(self) -> None:
        self.model.stop()
        time.sleep(self.random.uniform(0.2, 2.0))
        self.model.start()

    def broker_kill(self) -> None:
        self.doubled += WORKERS * CONCURRENCY
        self.rabbit.kill()
        self.rabbit.start()

    def broker_restart(self) -> None:
        self.doubled += WORKERS * CONCURRENCY
        self.rabbit.stop()
        self.rabbit.start()


def good(text: str) -> Reply:
    return Reply(GOOD, delay=MODEL_SECONDS)


def deck(randomness: random.Random, faults: int) -> list[str]:
    """So many faults in random order, of each kind its part: else some runs had many of the slow
    ones, and others none."""
    cards = [kind for kind, number in KINDS.items() for _ in range(number)]
    # Of a part of a hundred each kind has its part, too: every so-manieth of them as they lie.
    whole, rest = divmod(faults, len(cards))
    drawn = cards * whole + [cards[at * len(cards) // rest] for at in range(rest)]
    randomness.shuffle(drawn)
    return drawn


def wait_until_settled(stage: Stage) -> None:
    """Until work queue and ladder are empty and no worker has a message, at two looks in a row."""
    end = time.monotonic() + PATIENCE
    empty = 0
    while empty < 2:
        left = {
            name: one.get("messages", 0) or stage.vhost.count(name)
            for name, one in stage.queues().items()
            if name == "feedback" or ".retry." in name
        }
        held = [worker.progress()["in_flight"] for worker in stage.workers]
        empty = 0 if any(left.values()) or any(held) else empty + 1
        assert time.monotonic() < end, f"still there: {left}, in flight {held}"
        time.sleep(1)  # the broker's own figures are half a second old


@dataclass
class Tally:
    """What became of the messages of one stage."""

    drawn: Counter[str]
    seconds: dict[str, float]
    tried: set[str]
    published: set[str]
    poison: set[str]
    answered: Counter[str]
    dead: Counter[str]
    reasons: Counter[str]
    allowed: int
    statuses: list[int]
    troubles: list[str]

    @property
    def lost(self) -> set[str]:
        return self.published - set(self.answered) - set(self.dead)

    @property
    def duplicates(self) -> int:
        ended = self.answered + self.dead
        return ended.total() - len(ended)

    def __str__(self) -> str:
        return (
            f"{self.drawn.total()} faults in {sum(self.seconds.values()):.0f} s "
            f"{dict(self.drawn)}; "
            f"published {len(self.published)} = "
            f"answered {len(self.answered)} + dead-lettered "
            f"{len(set(self.dead) - set(self.answered))} {dict(self.reasons)}, lost "
            f"{len(self.lost)}, duplicates {self.duplicates} (allowed {self.allowed})"
        )


def run_stage(folder: Path, line: str, seed: int, faults: int, say: Callable[[str], None]) -> Tally:
    """So many faults under load on a broker, a model and workers of its own, and the count."""
    randomness = random.Random(seed)
    stage = Stage(folder, line, randomness)
    stage.model.decide = good
    drawn: Counter[str] = Counter()
    seconds: defaultdict[str, float] = defaultdict(float)
    try:
        stage.open()
        publishers = [Publisher(stage.vhost, name) for name in "abcdef"[:PUBLISHERS]]
        for publisher in publishers:
            publisher.start()
        for number, kind in enumerate(deck(randomness, faults), 1):
            drawn[kind] += 1
            begun = time.monotonic()
            stage.fault(kind)
            time.sleep(randomness.uniform(0.0, 0.5))
            seconds[kind] += time.monotonic() - begun
            if number % (50 if LONG else 10) == 0:
                say(f"seed {seed}, RabbitMQ {line}: {number} of {faults} faults")
        for publisher in publishers:
            publisher.stopping.set()
        for publisher in publishers:
            publisher.join(PATIENCE)
            assert not publisher.is_alive(), "a publisher hangs"
        wait_until_settled(stage)
        results = stage.vhost.drain("feedback.results")
        letters = stage.vhost.drain("feedback.dead-letters")
        return Tally(
            drawn=drawn,
            seconds=seconds,
            tried=set().union(*(one.tried for one in publishers)),
            published=set().union(*(one.published for one in publishers)),
            poison=set().union(*(one.poison for one in publishers)),
            answered=Counter(str(json.loads(body)["id"]) for body, _ in results),
            dead=Counter(properties.message_id for _, properties in letters),
            reasons=Counter(
                (properties.headers or {}).get("x-selfheal-reason", "by the broker")
                for _, properties in letters
            ),
            allowed=stage.doubled + sum(one.uncertain for one in publishers),
            statuses=stage.statuses,
            troubles=[
                worker.log.read_text()[-2000:]
                for worker in stage.workers
                if worker.process.poll() is not None or worker.get("/healthz")[0] != 200
            ],
        )
    except BaseException as error:
        spent = sum(seconds.values())
        say(f"seed {seed}, RabbitMQ {line}: ended in {spent:.0f} s after {drawn}: {error}")
        raise
    finally:
        stage.close()


def test_a_deck_has_its_part_of_each_fault() -> None:
    assert Counter(deck(random.Random(1), 300)) == Counter({k: 3 * n for k, n in KINDS.items()})
    short = Counter(deck(random.Random(1), 30))
    assert short.total() == 30
    assert all(abs(short[kind] - number * 0.3) <= 1 for kind, number in KINDS.items())
    assert set(short) == set(KINDS)


def test_seeded_faults_lose_nothing(
    tmp_path: Path, unavailable: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    for line in LINES:
        if why := available(line):
            unavailable(why)

    def say(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}")
            sys.stdout.flush()

    say(f"CHAOS_SEED={SEED} CHAOS_FAULTS={FAULTS}, on {len(LINES)} brokers at once")
    each = -(-FAULTS // len(LINES))
    with ThreadPoolExecutor(len(LINES)) as stages:
        runs = {
            f"seed {SEED + number}, RabbitMQ {line}": stages.submit(
                run_stage, tmp_path / str(number), line, SEED + number, each, say
            )
            for number, line in enumerate(LINES)
        }
    for name, run in runs.items():
        tally = run.result()
        say(f"{name}: {tally}")
        spent = {kind: round(tally.seconds[kind] / tally.drawn[kind], 1) for kind in tally.drawn}
        say(f"{name}: seconds a fault {spent}\n")
        assert not tally.lost
        assert set(tally.answered) | set(tally.dead) <= tally.tried
        assert tally.poison <= set(tally.dead)
        assert set(tally.answered).isdisjoint(tally.poison)
        assert tally.duplicates <= tally.allowed
        assert set(tally.statuses) <= {0}
        assert not tally.troubles
