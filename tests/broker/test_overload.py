"""A model server with fewer slots than there are handlers, and one that refuses some texts."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.broker.fake_ollama import FakeOllama, Reply
from tests.broker.test_delivery import bodies, ids

if TYPE_CHECKING:
    from tests.broker.conftest import StartWorker
    from tests.broker.rabbit import Vhost

CALL = 0.1


class Slots:
    """So many calls at once, each CALL seconds long; the others are refused at once."""

    def __init__(self, slots: int) -> None:
        self._free = threading.Semaphore(slots)
        self.calls = 0
        self.answers = 0

    def __call__(self, text: str) -> Reply:
        self.calls += 1
        if not self._free.acquire(blocking=False):
            return Reply(status=503)
        try:
            time.sleep(CALL)
            self.answers += 1
            return Reply()
        finally:
            self._free.release()


def test_four_workers_on_two_slots_lose_nothing_and_waste_little(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama
) -> None:
    number = 1000
    workers = [start_worker(vhost.uri, **model.env, CONCURRENCY=8).ready() for _ in range(4)]
    model.decide = slots = Slots(2)
    vhost.publish(bodies(number))
    began = time.monotonic()
    taken = vhost.take("feedback.results", number)
    took = time.monotonic() - began
    assert ids(taken) == ids([(body, None) for body in bodies(number)])
    assert vhost.count("feedback.dead-letters") == 0
    used = number * CALL / 2 / took
    print(f"{slots.calls / slots.answers:.2f} calls per answer, {used:.2f} of the capacity")  # noqa: T201
    assert slots.answers == number
    assert slots.calls <= 1.5 * number
    assert (
        'selfheal_worker_model_calls_allowed{gen_ai_provider_name="ollama"'
        in (workers[0].get("/metrics")[1])
    )


@pytest.mark.parametrize("error", ["the input exceeds the context length", "as told"])
def test_texts_that_are_refused_keep_no_others_waiting(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama, error: str
) -> None:
    def decide(text: str) -> Reply:
        return Reply(status=400, error=error) if "refuse" in text else Reply(delay=CALL)

    model.decide = decide
    worker = start_worker(vhost.uri, **model.env, CONCURRENCY=8).ready()
    seconds = []
    for refused in (0, 100):
        bad = [b'{"id": "bad%d", "text": "refuse %d"}' % (n, n) for n in range(refused)]
        vhost.publish([*bad, *bodies(200)])
        began = time.monotonic()
        assert len(vhost.take("feedback.results", 200)) == 200
        seconds.append(time.monotonic() - began)
    print(f"{seconds[1] / seconds[0]:.2f} x the time without the refused ones")  # noqa: T201
    vhost.wait_count("feedback.dead-letters", 100)
    asked = [model.calls[f"refuse {n}"] for n in range(100)]
    assert max(asked) <= 2
    reason = "text_too_long" if "context" in error else "refused_by_model"
    sample = f'selfheal_worker_dead_letters_total{{reason="{reason}"}}'
    worker.until(lambda: worker.metric(sample) == 100, "not all were dead-lettered")
    changes = [line["state"] for line in worker.lines() if line["event"] == "circuit breaker"]
    assert changes == ["closed"]
