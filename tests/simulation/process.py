"""A simulated process: the Runtime of the product's code that runs in it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

from tests.simulation.primitives import Condition, Event, Local, Lock, Queue, RLock

if TYPE_CHECKING:
    from tests.simulation.scheduler import Simulation, Thread

#: Unix time at which a simulation begins: 2026-01-01T00:00:00Z.
EPOCH = 1_767_225_600
SECOND = 1_000_000_000


class Process:
    """Its monotonic clock has a zero of its own. threads: those that have not ended; held: those
    that could run, but for a pause."""

    def __init__(self, simulation: Simulation, name: str, skew: float, random: Random) -> None:
        self.simulation = simulation
        self.name = name
        self.random = random
        self.threads: list[Thread] = []
        self.held: list[Thread] = []
        self.killed = False
        #: How many threads the machine has for it; None: any number.
        self.thread_limit: int | None = None
        #: How likely a thread gets the CPU late each time when it would take a lock, 0 to 1.
        self.late = 0.0
        self._at_kill: list[Callable[[], None]] = []
        self._pauses = 0
        self._ahead = _signed(skew)
        self._zero = int(random.random() * 100_000 * SECOND)
        self._numbers = count(1)
        self._read_at = self._reads = 0

    def __str__(self) -> str:
        return self.name

    @property
    def paused(self) -> bool:
        """Whether it is stopped for a while, like a process that gets no CPU."""
        return self._pauses > 0

    def kill(self) -> None:
        """End it like SIGKILL: none of its threads runs another line."""
        if self.killed:
            return
        self.simulation.record(self.name, "killed")
        self.killed = True
        self.threads.clear()
        self.held.clear()
        for callback in self._at_kill:
            callback()
        self.simulation.remove(self)

    def at_kill(self, callback: Callable[[], None]) -> None:
        """Have callback called when it is killed: its system closes what it had open."""
        self._at_kill.append(callback)

    def pause(self, seconds: float) -> None:
        """Run none of its threads for so long; time and its waits continue."""
        self.simulation.record(self.name, f"paused for {seconds} s")
        self._pauses += 1
        self.simulation.hold(self)
        self.simulation.after(seconds, self._resume)

    def _resume(self) -> None:
        self._pauses -= 1
        if not self._pauses:
            self.simulation.resume(self)

    def clock_jump(self, seconds: float) -> None:
        """Set its Unix time forward, or back where it is below 0."""
        self.simulation.record(self.name, f"clock jumps by {seconds} s")
        self._ahead += _signed(seconds)

    # -- the Runtime -------------------------------------------------------------------------

    def monotonic(self) -> float:
        """Seconds since some moment."""
        simulation = self.simulation
        if self._read_at != simulation.steps:
            self._read_at, self._reads = simulation.steps, 0
        self._reads += 1
        if self._reads > simulation.max_steps:  # time does not pass meanwhile
            simulation.run_away("only reads the clock")
        return (self._zero + simulation.nanoseconds) / SECOND

    def time(self) -> float:
        """Unix time in seconds, as this process's machine has it."""
        return EPOCH + (self.simulation.nanoseconds + self._ahead) / SECOND

    def sleep(self, seconds: float) -> None:
        """Wait; raises ValueError below 0, as time.sleep does."""
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        if seconds:
            self.simulation.wait([], seconds, f"sleep {seconds:.6f}")
        else:
            self.simulation.step("sleep 0")

    def event(self) -> Event:
        """Like threading.Event."""
        return Event(self.simulation, f"event {next(self._numbers)}")

    def lock(self) -> Lock:
        """Like threading.Lock."""
        return Lock(self.simulation, f"lock {next(self._numbers)}")

    def rlock(self) -> RLock:
        """Like threading.RLock."""
        return RLock(self.simulation, f"rlock {next(self._numbers)}")

    def condition(self, lock: Any = None) -> Condition:
        """Like threading.Condition."""
        name = f"condition {next(self._numbers)}"
        return Condition(self.simulation, name, self.rlock() if lock is None else lock)

    def local(self) -> Local:
        """Like threading.local."""
        return Local(self.simulation)

    def queue(self) -> Queue[Any]:
        """Like queue.SimpleQueue."""
        return Queue(self.simulation, f"queue {next(self._numbers)}")

    def start(self, name: str, target: Callable[[], None]) -> None:
        """A daemon thread. Raises RuntimeError where the machine has none for it."""
        if self.thread_limit is not None and len(self.threads) >= self.thread_limit:
            raise RuntimeError("can't start new thread")
        self.simulation.start(self, name, target)


def nanoseconds(seconds: float) -> int:
    """Rounded up: whoever waits for a moment must not wake before it, nor find that it did."""
    if seconds <= 0:
        return 0
    whole = -int(-seconds * SECOND // 1)
    return whole if whole / SECOND >= seconds else whole + 1


def _signed(seconds: float) -> int:
    return round(seconds * SECOND)
