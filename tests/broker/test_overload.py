"""A model server with fewer slots than there are handlers, and one that refuses some texts."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from selfheal_worker.model.analysis import PROBE_TEXT
from tests.broker.test_delivery import bodies, ids
from tests.support.fake_ollama import FakeOllama, Reply

if TYPE_CHECKING:
    from tests.broker.conftest import StartWorker
    from tests.support.rabbit import Vhost

CALL = 0.15


class Slots:
    """So many calls at once, each CALL seconds long; the others are refused at once."""

    def __init__(self, slots: int) -> None:
        self._free = threading.Semaphore(slots)
        self._counting = threading.Lock()
        self.calls = 0

    def __call__(self, text: str) -> Reply:
        with self._counting:
            self.calls += 1
        if not self._free.acquire(blocking=False):
            return Reply(status=503)
        try:
            time.sleep(CALL)
        finally:
            self._free.release()
        return Reply()


def test_four_workers_on_two_slots_lose_nothing_and_waste_few_calls(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama
) -> None:
    """How much of the server they use is asserted in tests/simulation/test_worker_found.py: here
    their own processes want the processor too."""
    number = 300
    # A machine that stands still for some seconds makes no call late, which would be asked twice.
    env = model.env | {"MODEL_DEADLINE": 60, "CONCURRENCY": 8}
    workers = [start_worker(vhost.uri, **env).ready() for _ in range(4)]
    model.decide = slots = Slots(2)
    vhost.publish(bodies(number))
    taken = vhost.take("feedback.results", number)
    assert ids(taken) == ids([(body, None) for body in bodies(number)])
    assert vhost.count("feedback.dead-letters") == 0
    print(f"{slots.calls / number:.2f} calls per answer")  # noqa: T201
    assert slots.calls <= 1.5 * number
    assert (
        'selfheal_worker_model_calls_allowed{gen_ai_provider_name="ollama"'
        in (workers[0].get("/metrics")[1])
    )


@pytest.mark.parametrize("error", ["the input exceeds the context length", "as set"])
def test_texts_that_are_refused_keep_no_others_waiting(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama, error: str
) -> None:
    def decide(text: str) -> Reply:
        return Reply(status=400, error=error) if "refuse" in text else Reply(delay=CALL)

    model.decide = decide
    # As above: a call that is late is a failure of its text.
    worker = start_worker(vhost.uri, **model.env | {"MODEL_DEADLINE": 60}, CONCURRENCY=8).ready()
    bad = [b'{"id": "bad%d", "text": "refuse %d"}' % (n, n) for n in range(100)]
    vhost.publish([*bad, *bodies(200)])
    assert len(vhost.take("feedback.results", 200)) == 200
    vhost.wait_count("feedback.dead-letters", 100)
    asked = [model.calls[f"refuse {n}"] for n in range(100)]
    assert max(asked) <= 2
    assert model.calls[PROBE_TEXT] <= 10
    reason = "text_too_long" if "context" in error else "refused_by_model"
    sample = f'selfheal_worker_dead_letters_total{{reason="{reason}"}}'
    worker.until("not all were dead-lettered", lambda: worker.metric(sample) == 100)
    changes = [line["state"] for line in worker.lines() if line["event"] == "circuit breaker"]
    assert changes == ["closed"]
