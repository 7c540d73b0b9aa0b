"""A day's worth of whatever people may send: each is answered or a dead letter with a reason.

The seed is printed; `CHAOS_SEED=n CHAOS_TEXTS=n` replays a run.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika
import pytest

from selfheal_worker.metrics import DEAD_LETTER_REASONS
from tests.support.rabbit import Rabbit, available
from tests.support.worker_process import WorkerProcess, environment

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [pytest.mark.chaos, pytest.mark.broker]

# One a second.
MESSAGES = int(
    os.environ.get("CHAOS_TEXTS", "86400" if os.environ.get("SELFHEAL_LONG") else "2000")
)
PARTS = 8
SEED = int(os.environ.get("CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
MARK = "PRIVATE-WORDS"
# What memory may be more at the end than at any time in the first half: the allocator's play.
FLAT_MIB = 4
# A run of fewer texts is over before every thread has met its largest one; then all that can be
# said is that the worker stays below what it may take.
SETTLED_AFTER, MOST_MIB = 20_000, 80


def anything(randomness: random.Random) -> Any:
    """A JSON value of any type, lone surrogates and NULs in its strings."""
    return randomness.choice(
        [
            None,
            True,
            -1,
            10**30,
            1e-300,
            "",
            "\x00",
            "\ud800" + MARK,
            [],
            [[1]] * 20,
            {"": {"\udfff": None}},
            {"text": MARK},
            string(randomness, 300),
        ]
    )


def string(randomness: random.Random, most: int) -> str:
    """Any code points, surrogates included."""
    size = randomness.randrange(most)
    return "".join(chr(randomness.randrange(0x110000)) for _ in range(size))


def body(randomness: random.Random) -> bytes:
    """One message, good or bad in one of many ways."""
    return randomness.choices(KINDS, WEIGHTS)[0](randomness)


def good(randomness: random.Random) -> bytes:
    words = ["love", "hate", MARK, "delivery", "late", "!", "😡", "não", "\u202e", "\x07"]
    text = " ".join(randomness.choices(words, k=randomness.randrange(1, 60)))
    fields: dict[str, Any] = {"text": text, "x": anything(randomness)}
    if randomness.random() < 0.5:
        fields["metadata"] = anything(randomness)
    return json.dumps(fields).encode()


def any_text(randomness: random.Random) -> bytes:
    return json.dumps({"text": f"a{string(randomness, 2000)}"}).encode()


def wrong_types(randomness: random.Random) -> bytes:
    return json.dumps({"text": anything(randomness), "id": anything(randomness)}).encode()


def no_object(randomness: random.Random) -> bytes:
    return json.dumps(anything(randomness)).encode()


def random_bytes(randomness: random.Random) -> bytes:
    return randomness.randbytes(randomness.randrange(2000))


def torn(randomness: random.Random) -> bytes:
    whole = good(randomness)
    return whole[: randomness.randrange(len(whole))]


def flipped(randomness: random.Random) -> bytes:
    whole = bytearray(good(randomness))
    for _ in range(randomness.randrange(1, 5)):
        whole[randomness.randrange(len(whole))] = randomness.randrange(256)
    return bytes(whole)


def nested(randomness: random.Random) -> bytes:
    depth = randomness.choice([10, 63, 64, 65, 1000, 100_000])
    opening, closing = randomness.choice([("[", "]"), ('{"a":', "}")])
    inner = opening * depth + "1" + closing * randomness.choice([depth, depth - 1, 0])
    return f'{{"text": "{MARK} is good", "a": {inner}}}'.encode()


def huge(randomness: random.Random) -> bytes:
    size = randomness.choice([60_000, 65_536, 65_537, 200_000, 3_000_000])
    return json.dumps({"text": (MARK + " \x00é") * (size // 17)}).encode()


def number(randomness: random.Random) -> bytes:
    digits = randomness.choice(["9" * 5000, "1e999", "-Infinity", "NaN", "0" * 10, "1" * 300])
    return f'{{"text": "{MARK}", "id": {digits}}}'.encode()


KINDS = [
    *(good, any_text, wrong_types, no_object, random_bytes),
    *(torn, flipped, nested, huge, number),
]
WEIGHTS = [40, 10, 10, 5, 10, 8, 8, 4, 1, 4]


def resident_mib(worker: WorkerProcess) -> float:
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def settled(worker: WorkerProcess) -> float:
    outcomes = ("answered", "dead_lettered")
    return sum(
        worker.metric(f'selfheal_worker_messages_total{{outcome="{one}"}}') for one in outcomes
    )


def wait_until_settled(worker: WorkerProcess, total: int) -> None:
    """Until so many are; a minute without one more is a failure."""
    while (before := settled(worker)) < total:
        worker.until(f"stuck at {before} of {total}", lambda: settled(worker) > before, 60)
        time.sleep(0.2)


def test_each_is_answered_or_dead_lettered_with_a_reason(
    tmp_path: Path, unavailable: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    if why := available():
        unavailable(why)
    randomness = random.Random(SEED)
    broker = Rabbit(tmp_path / "rabbit")
    worker = None
    answered: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    dead: Counter[str] = Counter()
    memory = []
    try:
        broker.start()
        vhost = broker.add_vhost("v")
        worker = WorkerProcess(environment(vhost.uri, LOG_LEVEL="info"), tmp_path / "log").ready()
        for part in range(PARTS):
            names = [f"n{n}" for n in range(part, MESSAGES, PARTS)]
            sent = pika.BlockingConnection(pika.URLParameters(vhost.uri))
            out = sent.channel()
            for name in names:
                properties = pika.BasicProperties(delivery_mode=2, correlation_id=name)
                out.basic_publish("", "feedback", body(randomness), properties)
            sent.close()
            total = len(answered) + len(dead) + len(names)
            wait_until_settled(worker, total)
            for taken, properties in vhost.drain("feedback.results"):
                json.loads(taken)
                answered[properties.correlation_id] += 1
            for _, properties in vhost.drain("feedback.dead-letters"):
                reasons[properties.headers["x-selfheal-reason"]] += 1
                dead[properties.correlation_id] += 1
            memory.append(round(resident_mib(worker), 1))
            with capsys.disabled():
                sys.stdout.write(f"\nseed {SEED}: {total} of {MESSAGES}, memory {memory[-1]} MiB")
                sys.stdout.flush()
        with capsys.disabled():
            sys.stdout.write(
                f"\nseed {SEED}: {MESSAGES} texts = answered {len(answered)} + dead-lettered "
                f"{len(dead)} {dict(reasons)}; memory {memory} MiB\n"
            )
        assert set(answered) | set(dead) == {f"n{n}" for n in range(MESSAGES)}
        assert (answered + dead).total() == MESSAGES
        assert set(reasons) <= set(DEAD_LETTER_REASONS)
        assert vhost.count("feedback") == 0
        settled = MESSAGES >= SETTLED_AFTER
        assert memory[-1] <= (max(memory[: PARTS // 2]) + FLAT_MIB if settled else MOST_MIB)
        assert worker.get("/healthz")[0] == 200
        assert (
            len([1 for line in worker.lines() if line["event"] == "connected to the broker"]) == 1
        )
        assert MARK not in worker.log.read_text()
        assert worker.terminate() == 0
    finally:
        sys.stdout.write(f"seed {SEED}\n")
        if worker is not None:
            worker.kill()
        broker.kill()
