"""The simulation's own guarantees: time, order, kills, pauses, and how a run fails."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from queue import Empty
from typing import Any

import pytest

from tests.simulation.process import EPOCH, Process
from tests.simulation.scheduler import (
    DeadlockError,
    EscapedError,
    RunawayError,
    Simulation,
    SimulationError,
)


def _discard(_: object) -> None:
    """Make a statement of an expression."""


def _run(seed: int, *targets: Callable[[Process], None], until: float = 100.0) -> list[str]:
    """The trace of a process with a thread for each target."""
    with Simulation(seed) as simulation:
        process = simulation.process("p")
        for number, target in enumerate(targets):
            process.start(f"t{number}", partial(target, process))
        simulation.run(until)
        return simulation.trace


def _contend(process: Process) -> None:
    """Threads that meet at a lock, a queue and an event."""
    lock, queue, done = process.rlock(), process.queue(), process.event()

    def add(number: int) -> None:
        for turn in range(3):
            with lock:
                queue.put((number, turn))
            process.sleep(process.random.random())
        if number == 2:
            done.set()

    for number in range(3):
        process.start(f"add-{number}", partial(add, number))
    assert done.wait(60)
    while not queue.empty():
        process.simulation.record("p", f"got {queue.get()}")


def test_the_same_seed_gives_the_same_trace_and_others_give_others() -> None:
    traces = {seed: _run(seed, _contend) for seed in range(20)}
    assert all(_run(seed, _contend) == trace for seed, trace in traces.items())
    orders = {tuple(line.split(" ", 1)[1] for line in trace) for trace in traces.values()}
    assert len(orders) == 20


def test_time_passes_only_while_nobody_can_run() -> None:
    seen: list[float] = []

    def sleeper(process: Process) -> None:
        begun = process.monotonic()
        process.sleep(1e-12)
        process.sleep(3600.0)
        seen.append(process.monotonic() - begun)

    begun = time.monotonic()
    _run(1, sleeper, until=4000.0)
    assert seen == [pytest.approx(3600.0, abs=1e-8)]
    assert time.monotonic() - begun < 60


def test_callbacks_run_at_their_time_and_in_their_order() -> None:
    with Simulation(1) as simulation:
        seen: list[tuple[float, str]] = []

        def see(name: str) -> None:
            seen.append((simulation.now, name))

        for when, name in ((2.0, "c"), (1.0, "a"), (1.0, "b")):
            simulation.at(when, partial(see, name))
        simulation.after(5.0, simulation.stop)
        simulation.run(until=4.0)
        assert (seen, simulation.now) == ([(1.0, "a"), (1.0, "b"), (2.0, "c")], 4.0)
        simulation.run(until=9.0)
        assert simulation.now == 5.0


def test_a_process_has_clocks_of_its_own() -> None:
    with Simulation(1) as simulation:
        fast, right = simulation.process("fast", skew=30.0), simulation.process("right")
        assert fast.monotonic() != right.monotonic()
        assert (fast.time(), right.time()) == (EPOCH + 30.0, EPOCH)
        before = right.monotonic()
        right.clock_jump(-10.0)
        assert (right.time(), right.monotonic()) == (EPOCH - 10.0, before)


@pytest.mark.parametrize("wait", ["event", "condition", "lock", "queue"])
def test_a_wait_ends_at_its_timeout(wait: str) -> None:
    ended: list[float] = []

    def waiter(process: Process) -> None:
        begun = process.monotonic()
        if wait == "event":
            assert not process.event().wait(2.5)
        elif wait == "condition":
            with (condition := process.condition()):
                assert not condition.wait_for(lambda: False, 2.5)
        elif wait == "lock":
            lock = process.lock()
            assert lock.acquire()
            assert not lock.acquire(blocking=False)
            assert not lock.acquire(timeout=2.5)
        else:
            with pytest.raises(Empty):
                process.queue().get(timeout=2.5)
        ended.append(process.monotonic() - begun)

    _run(1, waiter)
    assert ended == [pytest.approx(2.5)]


def test_a_waiter_is_woken_before_its_timeout() -> None:
    """And what it waited for has no effect on its later waits."""
    woken: list[tuple[Any, float]] = []
    with Simulation(1) as simulation:
        process = simulation.process("p")
        event, condition, queue = process.event(), process.condition(), process.queue()

        def waiter() -> None:
            for wait in (event.wait, lambda _: condition.wait(9.0), lambda _: queue.get(timeout=9)):
                with condition:
                    woken.append((wait(9.0), simulation.now))
            process.sleep(20.0)
            woken.append((None, simulation.now))

        def waker() -> None:
            process.sleep(1.0)
            event.set()
            process.sleep(1.0)
            with condition:
                condition.notify_all()
            process.sleep(1.0)
            queue.put("item")

        process.start("waiter", waiter)
        process.start("waker", waker)
        simulation.run(until=100.0)
    assert woken == [(True, 1.0), (True, 2.0), ("item", 3.0), (None, 23.0)]


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("kind", ["lock", "rlock", "condition"])
def test_a_lock_is_had_by_one_thread_at_a_time(kind: str, seed: int) -> None:
    inside: list[str] = []
    with Simulation(seed) as simulation:
        process = simulation.process("p")
        lock: Any = getattr(process, kind)()

        def work() -> None:
            with lock:
                inside.append("in")
                process.sleep(0.1)
                inside.append("out")

        for number in range(4):
            process.start(f"t{number}", work)
        simulation.run(until=10.0)
    assert inside == ["in", "out"] * 4


def test_locks_are_used_as_those_of_threading() -> None:
    def misuse(process: Process) -> None:
        lock, rlock, condition = process.lock(), process.rlock(), process.condition()
        for wrong in (lock.release, rlock.release, condition.notify, condition.wait):
            with pytest.raises(RuntimeError):
                wrong()
        with rlock, rlock:
            rlock.release()
            assert rlock.locked()
            assert rlock.acquire()
        assert not rlock.locked()
        with pytest.raises(ValueError, match="non-negative"):
            process.sleep(-1)

    _run(1, misuse)


@pytest.mark.parametrize("step", range(1, 40))
def test_a_killed_process_runs_no_other_line(step: int) -> None:
    lines: list[str] = []
    with Simulation(step) as simulation:
        process = simulation.process("p")
        lock = process.lock()
        at_kill: list[int] = []

        def work() -> None:
            try:
                while True:
                    with lock:
                        lines.append("in")
                        process.sleep(0.5)
            finally:
                lines.append("unwound")

        def kill() -> None:
            process.kill()
            at_kill.append(len(lines))

        for number in range(3):
            process.start(f"t{number}", work)
        simulation.at_step(step, kill)
        simulation.run(until=50.0)
        assert at_kill == [len(lines)]
        assert "unwound" not in lines


def test_a_process_that_kills_itself_stops_there() -> None:
    lines: list[str] = []
    with Simulation(1) as simulation:
        process = simulation.process("p")

        def work() -> None:
            process.kill()
            lines.append("survived")

        process.start("t", work)
        simulation.run(until=1.0)
        with pytest.raises(SimulationError, match="was killed"):
            process.start("t", work)
        again = simulation.process("p")
        again.start("t", lambda: lines.append("again"))
        simulation.run(until=2.0)
    assert lines == ["again"]


def test_a_paused_process_runs_late() -> None:
    with Simulation(1) as simulation:
        paused, other = simulation.process("paused"), simulation.process("other")
        ticks: dict[str, list[float]] = {"paused": [], "other": []}

        def tick(process: Process) -> None:
            for _ in range(5):
                process.sleep(1.0)
                ticks[process.name].append(simulation.now)

        paused.start("t", lambda: tick(paused))
        other.start("t", lambda: tick(other))
        simulation.at(1.5, lambda: paused.pause(1.0))
        simulation.at(2.0, lambda: paused.pause(2.0))
        simulation.run(until=20.0)
    assert ticks["other"] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert ticks["paused"] == [1.0, 4.0, 5.0, 6.0, 7.0]


def test_a_machine_may_have_no_thread_left() -> None:
    def start(process: Process) -> None:
        process.thread_limit = 2
        process.start("second", lambda: process.sleep(1.0))
        with pytest.raises(RuntimeError, match="new thread"):
            process.start("third", lambda: None)
        process.sleep(2.0)
        process.start("third", lambda: None)

    assert any("start third" in line for line in _run(1, start))


def _deadlock(seed: int) -> str:
    """The error of two threads that take two locks in opposite orders; "" if they were lucky."""
    with Simulation(seed) as simulation:
        process = simulation.process("p")
        locks = [process.lock(), process.rlock()]

        def take(one: Any, other: Any) -> None:
            with one, other:
                process.sleep(1.0)

        def tick() -> None:
            for _ in range(9):
                process.sleep(1.0)

        process.start("a", lambda: take(*locks))
        process.start("b", lambda: take(*reversed(locks)))
        process.start("ticks", tick)
        try:
            simulation.run(until=50.0)
        except DeadlockError as error:
            return str(error)
    return ""


def test_what_is_left_at_the_end_is_cleaned_up_without_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A generator is closed where it is collected, there nobody sees what its end raises."""
    ignored: list[object] = []
    monkeypatch.setattr("sys.unraisablehook", ignored.append)
    order: list[str] = []

    def numbers(process: Process) -> Iterator[int]:
        lock = process.lock()
        try:
            yield 1
        finally:
            with lock:
                order.append("cleaned up")

    def target(process: Process) -> None:
        for _ in numbers(process):
            process.event().wait()

    with Simulation(1) as simulation:
        process = simulation.process("p")
        process.start("t", partial(target, process))
        simulation.at(1.0, simulation.stop)
        simulation.run(2.0)
        assert not order
    assert order == ["cleaned up"]
    assert not ignored


def test_threads_that_wait_for_each_other_are_named() -> None:
    found = list(filter(None, map(_deadlock, range(20))))
    assert 0 < len(found) < 20
    assert all("p/a" in text and "p/b" in text and "take" in text for text in found)


def test_what_nothing_will_wake_is_named() -> None:
    with pytest.raises(DeadlockError, match=r"p/t0 \(wait for event 1\) at .*<lambda>"):
        _run(1, lambda process: _discard(process.event().wait()))


def _spin(process: Process) -> None:
    end = process.monotonic() + 1.0
    while process.monotonic() < end:
        pass


def _yield(process: Process) -> None:
    while True:
        process.sleep(0)


@pytest.mark.parametrize("endless", [_spin, _yield])
def test_a_thread_that_runs_without_end_is_named(endless: Callable[[Process], None]) -> None:
    with Simulation(1, max_steps=1000) as simulation:
        process = simulation.process("p")
        process.start("t", lambda: endless(process))
        with pytest.raises(RunawayError, match=f"(?s)p/t .*{endless.__name__}"):
            simulation.run(until=10.0)


def test_callbacks_that_never_end_are_found() -> None:
    def again() -> None:
        simulation.after(0.0, again)

    with Simulation(1, max_steps=1000) as simulation:
        again()
        with pytest.raises(RunawayError):
            simulation.run(until=10.0)


def test_an_exception_that_leaves_a_thread_fails_the_run() -> None:
    def fall(process: Process) -> None:
        process.sleep(1.0)
        raise KeyError("lost")

    with pytest.raises(EscapedError, match=r"p/t0: KeyError\('lost'\)") as caught:
        _run(1, fall)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_failure_of_the_world_cannot_be_caught_by_the_product() -> None:
    def product(process: Process) -> None:
        try:
            process.simulation.fail(SimulationError("invariant"))
        except BaseException as error:  # noqa: BLE001 as the product's threads do
            process.simulation.record("p", f"caught {error!r}")

    with pytest.raises(SimulationError, match="invariant"):
        _run(1, product)


def test_checks_run_after_each_step() -> None:
    with Simulation(1) as simulation:
        process = simulation.process("p")
        value: list[int] = []

        def check() -> None:
            assert len(value) < 3, "too many"

        def add() -> None:
            for number in range(9):
                value.append(number)
                process.sleep(1.0)

        simulation.checks.append(check)
        process.start("t", add)
        with pytest.raises(AssertionError, match="too many"):
            simulation.run(until=10.0)
        assert simulation.now == 2.0


_RELEASED = threading.Event()


def _start_thread(process: Process) -> None:
    threading.Thread(target=_RELEASED.wait, daemon=True).start()
    process.sleep(1.0)


def _connect(process: Process) -> None:
    with suppress(BaseException):
        socket.create_connection(("127.0.0.1", 9))


@pytest.mark.parametrize("leave", [_start_thread, _connect])
def test_a_simulated_thread_cannot_leave_the_simulation(leave: Callable[[Process], None]) -> None:
    _RELEASED.clear()
    with pytest.raises(AssertionError, match="leaves the simulation"):
        _run(1, leave)
    _RELEASED.set()


def test_a_callback_of_the_world_does_not_block() -> None:
    with Simulation(1) as simulation:
        event = simulation.process("p").event()
        simulation.after(1.0, lambda: _discard(event.wait()))
        with pytest.raises(SimulationError, match="would block"):
            simulation.run(until=2.0)


def _order(seed: int) -> tuple[int, ...]:
    with Simulation(seed) as simulation:
        process = simulation.process("p")
        order: list[int] = []
        for number in range(3):
            process.start(str(number), partial(order.append, number))
        simulation.run(until=1.0)
        return tuple(order)


def test_threads_begin_in_any_order() -> None:
    assert len(set(map(_order, range(30)))) == 6


def test_times_in_a_trace_never_go_back() -> None:
    times = [float(line.split(" ", 1)[0]) for line in _run(3, _contend)]
    assert all(before <= after for before, after in pairwise(times))


def test_nobody_wakes_before_the_moment_that_was_waited_for() -> None:
    """Also where a number of seconds is no whole number of nanoseconds."""
    with Simulation(1) as simulation:
        seen: list[tuple[float, float]] = []

        def see(moment: float) -> None:
            seen.append((moment, simulation.now))

        for _ in range(1000):
            moment = simulation.random.random() * 2000
            simulation.at(moment, partial(see, moment))
        simulation.run(until=3000.0)
    assert len(seen) == 1000
    assert all(moment <= now < moment + 1e-8 for moment, now in seen)


def test_each_thread_has_attributes_of_its_own() -> None:
    seen: list[tuple[Any, Any]] = []
    with Simulation(1) as simulation:
        process = simulation.process("p")
        local: Any = process.local()

        def work(number: int) -> None:
            before = getattr(local, "number", None)
            local.number = number
            process.sleep(1.0)
            seen.append((before, local.number))

        for number in range(3):
            process.start(str(number), partial(work, number))
        simulation.run(until=5.0)
    assert sorted(seen, key=str) == [(None, 0), (None, 1), (None, 2)]


def test_a_kill_is_heard_of_by_the_machine() -> None:
    with Simulation(1) as simulation:
        process = simulation.process("p")
        heard: list[float] = []
        process.at_kill(lambda: heard.append(simulation.now))
        simulation.at(3.0, process.kill)
        simulation.at(4.0, process.kill)
        simulation.run(until=5.0)
    assert heard == [3.0]


def test_a_thread_whose_time_is_up_is_not_woken_a_second_time() -> None:
    with Simulation(1) as simulation:
        process = simulation.process("p")
        event = process.event()
        waited: list[float] = []

        def wait() -> None:
            for seconds in (1.0, 5.0):
                event.wait(seconds)
                event.clear()
                waited.append(simulation.now)

        process.start("waits", wait)
        # At the same moment and later: the thread can run, and is still among those that wait.
        simulation.at(0.5, lambda: simulation.at(1.0, event.set))
        simulation.run(until=10.0)
    assert waited == [1.0, 6.0]
