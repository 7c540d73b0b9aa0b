from __future__ import annotations

import json
import queue
import threading
import time
from pathlib import Path

from selfheal_worker.broker import Delivery
from selfheal_worker.handlers import Handlers, Work
from selfheal_worker.message import Message
from selfheal_worker.model import injected_faults
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer
from selfheal_worker.task import task_file

ANSWER = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": [],
}


class Provider:
    """Answers at once, and says that it was asked."""

    name, model, version = "test", "test", "1"

    def __init__(self) -> None:
        self.asked = threading.Event()

    def warm_up(self) -> None: ...

    def close(self) -> None: ...

    def analyse(self, text: str, deadline: float) -> Answer:
        self.asked.set()
        return Answer(json.dumps(ANSWER))


def test_calls_hang_past_their_deadline_while_the_file_is_there(tmp_path: Path) -> None:
    file = tmp_path / "hang"
    file.touch()
    provider = Provider()
    finished: queue.SimpleQueue[Work] = queue.SimpleQueue()
    before = injected_faults.before_calls(0, file)
    chain = Chain([Member(provider)], task_file.load(), before=before)
    handlers = Handlers(chain, threads=1, deadline=0.01, finished=finished.put)
    handlers.submit(_work())
    assert not provider.asked.wait(0.3)
    file.unlink()
    assert finished.get(timeout=60).error is None
    assert provider.asked.is_set()


def test_what_was_given_up_is_still_running_until_its_thread_is_free(tmp_path: Path) -> None:
    file = tmp_path / "hang"
    file.touch()
    provider = Provider()
    finished: queue.SimpleQueue[Work] = queue.SimpleQueue()
    begun = threading.Event()

    def before(deadline: float) -> None:
        begun.set()
        injected_faults.before_calls(0, file)(deadline)

    chain = Chain([Member(provider)], task_file.load(), before=before)
    handlers = Handlers(chain, threads=2, deadline=60, finished=finished.put)
    assert handlers.running() == []
    work = _work()
    handlers.submit(work)
    assert begun.wait(60)
    work.given_up = True
    assert handlers.running() == [work]
    file.unlink()
    assert finished.get(timeout=60) is work
    assert handlers.running() == []


def test_a_call_has_its_whole_time_after_a_wait_for_other_large_bodies() -> None:
    """Each is decoded alone; a message would have no time left, and lose an attempt by it."""
    deadlines: queue.SimpleQueue[float] = queue.SimpleQueue()
    finished: queue.SimpleQueue[Work] = queue.SimpleQueue()
    chain = Chain([Member(Provider())], task_file.load(), before=deadlines.put)
    handlers = Handlers(chain, threads=2, deadline=0.2, finished=finished.put)
    reading, may_end = threading.Event(), threading.Event()
    read_at: list[float] = []

    def slow() -> Message:
        reading.set()
        may_end.wait(60)
        read_at.append(time.monotonic())
        return _work().message

    first, second = _work(), _work()
    first.read = second.read = slow
    handlers.submit(first)
    assert reading.wait(30)
    handlers.submit(second)
    while len(handlers.running()) < 2:
        threading.Event().wait(0.001)
    end = second.due
    while time.monotonic() < end:
        threading.Event().wait(0.01)
    may_end.set()
    assert {finished.get(timeout=30).error for _ in range(2)} == {None}
    # The one that was read first may be asked about last.
    begun = sorted(deadlines.get(timeout=0) for _ in read_at)
    assert all(due >= at + 0.2 for at, due in zip(sorted(read_at), begun, strict=True))


def _work() -> Work:
    message = Message(id="1", id_generated=False, text="good", metadata=None, extra={})
    delivery = Delivery(1, 1, False, "", "feedback", b"{}", None)
    return Work(delivery, message, attempts=0, received=0.0, received_unix=0.0)
