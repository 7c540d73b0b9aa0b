"""A model server with fewer slots than there are handlers, which says nothing but 503."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

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
