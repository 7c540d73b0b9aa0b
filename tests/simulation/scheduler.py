"""Virtual time, and one OS thread in which all threads of all simulated processes run in turn.

Each simulated thread is a greenlet, with a stack of its own: the product's blocking code stays as
it is. A thread runs until its next scheduling point; then the seed chooses who runs next among
those that can. Time passes only when nobody can run: running takes none. Time is kept in whole
nanoseconds, so that sums of pauses do not depend on their order.

    with Simulation(seed) as simulation:
        process = simulation.process("worker-0")  # has the methods of the product's Runtime
        process.start("main", target)
        simulation.after(5.0, process.kill)
        simulation.run(until=60.0)

What is random comes from generators of its own, one for the order of threads, one for the world
and one for each process, so that another choice of one leaves the others as they are.
"""

from __future__ import annotations

import heapq
import inspect
from collections.abc import Callable, Sequence
from itertools import count
from random import Random
from types import TracebackType
from typing import Any, TypeVar

import greenlet

from tests.simulation.primitives import Event, Lock
from tests.simulation.process import SECOND, Process, nanoseconds
from tests.simulation.real_world import GUARD

T = TypeVar("T")

#: Steps without time passing after which the run is taken for endless.
MAX_STEPS = 200_000
#: Seconds that a thread gets no CPU at most, where threads get it late.
_LATE = (0.02, 0.3, 3.0)
#: Names shown of what runs without end.
_SHOWN = 10


class SimulationError(AssertionError):
    """The run has failed; the text says which threads are concerned and where they stand."""


class DeadlockError(SimulationError):
    """Threads wait for each other, or for something that nothing will do."""


class RunawayError(SimulationError):
    """Threads run, and no time passes."""


class EscapedError(SimulationError):
    """An exception left a simulated thread; it is this error's cause."""


class Ended(BaseException):
    """Raised in the threads that are left when the simulation is closed."""


class Thread:
    """One simulated thread. doing: what it did or waits for. awaits: the lock that it needs."""

    __slots__ = (
        *("awaits", "blocked", "doing", "ended", "generation", "name", "process", "stack"),
        "woken",
    )

    stack: Any  # its greenlet

    def __init__(self, process: Process, name: str) -> None:
        self.process = process
        self.name = f"{process.name}/{name}"
        self.doing = "start"
        self.awaits: Lock | None = None
        self.blocked = False  # waits, and nothing has ended its wait yet
        self.woken = False
        self.ended = False
        self.generation = 0  # of its latest wait

    def __str__(self) -> str:
        return self.name

    def where(self) -> str:
        """Its name, what it does, and the innermost lines of it outside of the scheduler."""
        frame = self.stack.gr_frame or inspect.currentframe()  # the latter where it runs
        lines: list[str] = []
        while frame is not None and len(lines) < 3:
            code = frame.f_code
            if code.co_filename not in _OWN_FILES:
                file = "/".join(code.co_filename.split("/")[-2:])
                lines.append(f"{file}:{frame.f_lineno} {code.co_qualname}")
            frame = frame.f_back
        return f"{self} ({self.doing}) at {' < '.join(lines) or 'its start'}"


class Simulation:
    """The scheduler. `run` is called in the OS thread and greenlet that made it.

    checks: called after each step of a thread and after each callback, to check invariants; what
    they raise fails the run.
    """

    def __init__(self, seed: int, *, max_steps: int = MAX_STEPS, detail: bool = True) -> None:
        """detail: each scheduling point is in the trace, not only what is recorded."""
        self.seed = seed
        self.random = Random(f"{seed}/world")
        self.current: Thread | None = None
        self.closed = False
        self.checks: list[Callable[[], None]] = []
        self.steps = 0
        self.nanoseconds = 0
        self.processes: list[Process] = []
        self._order = Random(f"{seed}/order")
        self._late = Random(f"{seed}/late")
        self.max_steps = max_steps
        self._detail = detail
        self._hub = greenlet.getcurrent()
        GUARD.install()
        self._runnable: list[Thread] = []
        self._threads: list[Thread] = []
        # (when, number, callback or thread, generation of the thread's wait)
        self._timers: list[tuple[int, int, Callable[[], None] | Thread, int]] = []
        self._numbers = count()
        self._at_steps: list[tuple[int, int, Callable[[], None]]] = []
        self._quiet_since = 0  # the step at which time passed last
        self._callbacks = 0  # since then
        self._failure: BaseException | None = None
        self._stopped = False
        self._lines: list[tuple[int, str, str]] = []

    # -- for the world -----------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds since the simulation began."""
        return self.nanoseconds / SECOND

    @property
    def trace(self) -> list[str]:
        """What happened, a line each: "seconds process/thread what"."""
        return [f"{when / SECOND:.9f} {who} {what}" for when, who, what in self._lines]

    def record(self, who: str, what: str) -> None:
        """Add a line to the trace."""
        self._lines.append((self.nanoseconds, who, what))

    def process(self, name: str, skew: float = 0.0) -> Process:
        """A new process, the Runtime of what runs in it. skew: seconds that its Unix time is
        ahead. A process that begins again is another process of the same name."""
        number = sum(process.name == name for process in self.processes)
        process = Process(self, name, skew, Random(f"{self.seed}/{name}/{number}"))
        self.processes.append(process)
        return process

    def at(self, when: float, callback: Callable[[], None]) -> None:
        """Have callback called at that second, or at once if it is over. It may not block."""
        due = max(self.nanoseconds, nanoseconds(when))
        heapq.heappush(self._timers, (due, next(self._numbers), callback, 0))

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Have callback called that many seconds from now. It may not block."""
        due = self.nanoseconds + nanoseconds(seconds)
        heapq.heappush(self._timers, (due, next(self._numbers), callback, 0))

    def at_step(self, step: int, callback: Callable[[], None]) -> None:
        """Have callback called between two steps of the threads: when there were so many."""
        heapq.heappush(self._at_steps, (step, next(self._numbers), callback))

    def choose(self, options: Sequence[T]) -> T:
        """One of them, by the seed."""
        return options[int(self.random.random() * len(options))]

    def fail(self, error: BaseException) -> None:
        """End the run with this error, also where the product would catch it."""
        if self._failure is None:
            self._failure = error
        if self.current is not None:
            self._hub.switch()

    def stop(self) -> None:
        """Have `run` return before the next step."""
        self._stopped = True

    def run(self, until: float) -> None:
        """Run until that second, or until `stop`. Raises SimulationError and what checks and
        callbacks raise."""
        end = nanoseconds(until)
        self._stopped = False
        while True:
            while self._timers and self._timers[0][0] <= self.nanoseconds:
                self._fire()
            while self._at_steps and self._at_steps[0][0] <= self.steps:
                heapq.heappop(self._at_steps)[2]()
                self._check()
            if self._stopped:
                return
            if self._runnable:
                self._switch(self._next_thread())
                continue
            when = self._next_timer()
            if when is None:
                self._check_progress()
            if when is None or when > end:
                self.nanoseconds = max(self.nanoseconds, end)
                return
            GUARD.check_threads()
            self.nanoseconds = when
            self._quiet_since, self._callbacks = self.steps, 0

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads that are left. Their `finally` blocks run now, when nothing that they do
        can be seen any more: each wait raises `Ended`."""
        self.closed = True
        for thread in self._threads:
            self.current = thread
            if thread.stack:  # has begun, and has not ended
                thread.stack.throw(Ended)
        self.current = None
        self._threads.clear()

    # -- for the primitives and the modelled transports --------------------------------------

    def step(self, what: str) -> None:
        """A scheduling point: others may run before the current thread continues. In a callback
        of the world it is none."""
        if self.closed:
            raise Ended
        thread = self.current
        if thread is None:
            return
        self._count(thread, what)
        if (
            self._runnable
            or thread.process.paused
            or (self._timers and self._timers[0][0] <= self.nanoseconds)
            or (self._at_steps and self._at_steps[0][0] <= self.steps)
        ):
            self._ready(thread)
            self._hub.switch()

    def come_late(self) -> None:
        """Keep the current thread from the CPU for a moment, as likely as its process says."""
        thread = self.current
        if thread is None or self.closed or not thread.process.late:
            return
        if self._late.random() < thread.process.late:
            self.wait([], self._late.choice(_LATE) * self._late.random(), "late")

    def wait(self, waiting: list[Thread], timeout: float | None, what: str) -> bool:
        """Have the current thread wait in that list until `wake`: True, or for timeout seconds:
        False. Then it is no longer in the list."""
        if self.closed:
            raise Ended
        thread = self.current
        if thread is None:
            raise SimulationError(f"a callback of the world would block: {what}")
        self._count(thread, what)
        thread.generation += 1
        thread.blocked, thread.woken = True, False
        if timeout is not None:
            due = self.nanoseconds + nanoseconds(timeout)
            timer = (due, next(self._numbers), thread, thread.generation)
            heapq.heappush(self._timers, timer)
        waiting.append(thread)
        self._hub.switch()
        if not thread.woken:
            waiting.remove(thread)
        return thread.woken

    def wake(self, waiting: list[Thread], thread: Thread) -> None:
        """Have a thread that waits in that list continue."""
        waiting.remove(thread)
        thread.woken = True
        self._continue(thread)

    def choose_waiting(self, waiting: Sequence[Thread]) -> Thread:
        """One of the threads that wait, by the seed."""
        return waiting[int(self._order.random() * len(waiting))]

    def check_lock(self, lock: Lock) -> None:
        """Fail if the current thread would wait for this lock for ever."""
        me, chain = self.current, []
        while lock.owner is not None and not self.closed:
            owner = lock.owner
            chain.append(f"{lock.name} has {owner.where()}")
            if owner is me or owner.ended:
                self.fail(DeadlockError(f"{me} waits for ever: " + "; ".join(chain)))
            if owner.awaits is None:
                return
            lock = owner.awaits

    def run_away(self, how: str) -> None:
        """Fail: threads run, and no time passes."""
        running = [*([self.current] if self.current else []), *self._runnable[:_SHOWN]]
        lines = "\n  ".join(one.where() for one in running)
        self.fail(RunawayError(f"at {self.now} s: {how}:\n  {lines}"))

    def start(self, process: Process, name: str, target: Callable[[], None]) -> None:
        """A new thread of a process."""
        if self.closed:
            raise Ended
        if process.killed:
            raise SimulationError(f"{process} was killed: begin another process of its name")
        thread = Thread(process, name)
        thread.stack = greenlet.greenlet(lambda: self._body(thread, target), self._hub)
        self._threads.append(thread)
        process.threads.append(thread)
        self._ready(thread)
        self.step(f"start {name}")

    def remove(self, process: Process) -> None:
        """None of its threads runs again. Returns only to the threads of other processes."""
        self._runnable = [one for one in self._runnable if one.process is not process]
        if self.current is not None and self.current.process is process:
            self._hub.switch()

    def hold(self, process: Process) -> None:
        """Set its threads aside while it is paused."""
        process.held += [one for one in self._runnable if one.process is process]
        self._runnable = [one for one in self._runnable if one.process is not process]

    def resume(self, process: Process) -> None:
        """The end of a pause."""
        held, process.held = process.held, []
        for thread in held:
            self._ready(thread)

    # -- inside --------------------------------------------------------------------------------

    def _body(self, thread: Thread, target: Callable[[], None]) -> None:
        try:
            target()
        except Ended:
            pass
        except BaseException as error:  # noqa: BLE001 it fails the run
            if not self.closed and self._failure is None:
                self._failure = EscapedError(f"{thread}: {error!r}")
                self._failure.__cause__ = error
        thread.ended = True
        if thread in thread.process.threads:
            thread.process.threads.remove(thread)

    def _ready(self, thread: Thread) -> None:
        if thread.process.killed:
            return
        (thread.process.held if thread.process.paused else self._runnable).append(thread)

    def _continue(self, thread: Thread) -> None:
        if not thread.blocked:
            return  # its time was up, and it has not run since
        thread.blocked = False
        thread.generation += 1  # its timer has no effect any more
        self._ready(thread)

    def _count(self, thread: Thread, what: str) -> None:
        thread.doing = what
        self.steps += 1
        if self._detail:
            self._lines.append((self.nanoseconds, thread.name, what))
        if self.steps - self._quiet_since > self.max_steps:
            self.run_away(f"{self.max_steps} steps without time passing")

    def _next_thread(self) -> Thread:
        runnable = self._runnable
        index = int(self._order.random() * len(runnable))
        runnable[index], runnable[-1] = runnable[-1], runnable[index]
        return runnable.pop()

    def _switch(self, thread: Thread) -> None:
        self.current = thread
        GUARD.fail = self.fail
        thread.stack.switch()
        GUARD.fail = self.current = None
        self._check()

    def _fire(self) -> None:
        _, _, what, generation = heapq.heappop(self._timers)
        if not isinstance(what, Thread):
            self._callbacks += 1
            if self._callbacks > self.max_steps:
                raise RunawayError(f"at {self.now} s: {what} and others call each other for ever")
            what()
            self._check()
        elif what.generation == generation:
            self._continue(what)

    def _check(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        for check in self.checks:
            check()

    def _next_timer(self) -> int | None:
        """When the next timer fires that has an effect."""
        while self._timers:
            when, _, what, generation = self._timers[0]
            if not isinstance(what, Thread) or (
                what.generation == generation and not what.process.killed
            ):
                return when
            heapq.heappop(self._timers)
        return None

    def _check_progress(self) -> None:
        """Nothing will ever happen: raises DeadlockError if threads are left."""
        left = [one for process in self.processes for one in process.threads]
        if left:
            lines = "\n  ".join(one.where() for one in left)
            raise DeadlockError(f"at {self.now} s nothing can wake what is left:\n  {lines}")


_OWN_FILES = {Simulation.run.__code__.co_filename, Event.wait.__code__.co_filename}
