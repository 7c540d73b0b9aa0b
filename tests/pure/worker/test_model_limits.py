"""The turns of one model: who gets one, who hears that there is none, and the server's pauses."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import defaultdict

import pytest

from selfheal_worker.model.errors import ModelUnavailableError, OverloadedError, TransientError
from selfheal_worker.model.limits import LimitedError, Limits, pause_asked


class Waiters:
    """Threads that wait for a turn, each with a clock of its own."""

    def __init__(self) -> None:
        self.now: dict[str, float] = defaultdict(float)
        self.looked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.ended: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
        self.limits = Limits(concurrency=1, per_minute=6, clock=self._clock)

    def _clock(self) -> float:
        name = threading.current_thread().name
        self.looked.put(name)
        return self.now[name]

    def wait(self, name: str, deadline: float) -> None:
        """Have one wait; it does when this returns."""

        def wait() -> None:
            try:
                with self.limits.turn(deadline):
                    self.ended.put((name, True))
            except LimitedError:
                self.ended.put((name, False))

        threading.Thread(target=wait, name=name, daemon=True).start()
        while self.looked.get(timeout=60) != name:
            pass
        self.limits.pause(0)  # it reads the clock in a lock that only a waiting one lets go


def test_a_turn_that_comes_too_late_for_one_goes_to_the_next() -> None:
    waiters = Waiters()
    with waiters.limits.turn(5):
        waiters.wait("hurried", 5)
        waiters.wait("patient", 1e6)
        waiters.now["patient"] = 10
    assert waiters.ended.get(timeout=60) == ("hurried", False)
    assert waiters.ended.get(timeout=60) == ("patient", True)


def test_who_wakes_past_the_deadline_takes_no_turn() -> None:
    limits = Limits(clock=lambda: 10.0)
    with pytest.raises(LimitedError), limits.turn(10.0):
        pass
    with limits.turn(10.1):
        pass


def test_a_pause_that_the_server_asked_for_is_distinguished_from_a_limit_of_ours() -> None:
    limits = Limits(per_minute=1, clock=lambda: 100.0)
    with limits.turn(101):
        pass
    with pytest.raises(LimitedError) as ours, limits.turn(101):
        pass
    assert (ours.value.retry_after, pause_asked(ours.value)) == (60.0, 0.0)
    limits = Limits(clock=lambda: 100.0)
    with pytest.raises(TransientError), limits.turn(101):
        raise TransientError("429", retry_after=3600.0)
    with pytest.raises(LimitedError, match="requested a pause, 3600 s") as asked, limits.turn(101):
        pass
    assert (asked.value.retry_after, pause_asked(asked.value)) == (3600.0, 3600.0)


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (TransientError("429", retry_after=7.0), 7.0),
        (TransientError("500"), 0.0),
        (ModelUnavailableError("away"), 0.0),
        (KeyError(), 0.0),
    ],
)
def test_the_pause_that_an_error_asks_for(error: Exception, pause: float) -> None:
    assert pause_asked(error) == pause


@pytest.mark.parametrize("started", [0.0, 98_765.4])
def test_slots_are_let_go_by_unix_time_whatever_a_worker_has_as_its_clock(started: float) -> None:
    passed = 0.0
    limits = Limits(
        clock=lambda: started + passed, unix=lambda: 1_700_000_000.0 + passed, chance=lambda: 0.0
    )
    with pytest.raises(OverloadedError), limits.turn(math.inf):
        raise OverloadedError("503")
    passed = 10.0
    with limits.turn(math.inf):
        passed = 11.0
    passed = 39.5
    with limits.turn(math.inf):
        passed = 40.5
    with pytest.raises(LimitedError) as caught, limits.turn(started + 41):
        pass
    assert caught.value.retry_after == pytest.approx(1.2)


def test_turns_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    """Who asks again at once, as a busy handler does, does not overtake who waits."""
    limits = Limits(concurrency=1)
    order: queue.SimpleQueue[str] = queue.SimpleQueue()
    release = threading.Semaphore(0)

    def call(name: str) -> None:
        with limits.turn(math.inf):
            order.put(name)
            assert release.acquire(timeout=60)

    waiting = []
    with limits.turn(math.inf):
        for number in range(5):
            thread = threading.Thread(target=call, args=(f"waits {number}",), daemon=True)
            thread.start()
            waiting.append(thread)
            await_waiting(limits, number + 1)
    again = threading.Thread(target=call, args=("asks again",), daemon=True)
    again.start()
    for _ in range(6):
        release.release()
    for thread in (*waiting, again):
        thread.join(60)
    assert [order.get_nowait() for _ in range(6)] == [
        *(f"waits {number}" for number in range(5)),
        "asks again",
    ]


def test_who_is_woken_too_early_keeps_its_place() -> None:
    """Short waits of a paced model end again and again before there is a turn."""
    limits = Limits(concurrency=1)
    order: queue.SimpleQueue[str] = queue.SimpleQueue()

    def call(name: str) -> None:
        with limits.turn(math.inf):
            order.put(name)

    threads = [threading.Thread(target=call, args=(str(n),), daemon=True) for n in range(4)]
    with limits.turn(math.inf):
        for number, thread in enumerate(threads):
            thread.start()
            await_waiting(limits, number + 1)
            limits.wake()
    for thread in threads:
        thread.join(60)
    assert [order.get_nowait() for _ in threads] == ["0", "1", "2", "3"]


def test_who_gives_up_leaves_its_place_to_the_next() -> None:
    limits = Limits(concurrency=1)
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    given_up: set[str] = set()

    def call(name: str) -> None:
        try:
            with limits.turn(math.inf, given_up=lambda: name in given_up):
                ended.put(f"{name} has a turn")
        except LimitedError:
            ended.put(f"{name} left")

    with limits.turn(math.inf):
        for number, name in enumerate("abc"):
            threading.Thread(target=call, args=(name,), daemon=True).start()
            await_waiting(limits, number + 1)
        given_up |= {"a", "b"}
        limits.wake()
        assert {ended.get(timeout=60), ended.get(timeout=60)} == {"a left", "b left"}
    assert ended.get(timeout=60) == "c has a turn"


def await_waiting(limits: Limits, number: int) -> None:
    """Until so many threads wait for a turn."""
    end = time.monotonic() + 60
    while limits.waiting < number:
        assert time.monotonic() < end
        threading.Event().wait(0.002)
