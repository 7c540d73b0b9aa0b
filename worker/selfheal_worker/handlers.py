"""The threads that call the model."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from selfheal_worker.broker import Delivery
from selfheal_worker.message import Message
from selfheal_worker.model.analysis import Reply
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.refusals import NO_HISTORY, RefusalHistory
from selfheal_worker.runtime import REAL, Runtime

# How long after its deadline a handler is taken for hung: a provider may need a moment to raise.
HANG_MARGIN = 5.0


@dataclass(slots=True, eq=False)
class Work:
    """One message on its way through a handler. Times are `time.monotonic()`.

    started: when a thread took it, 0.0 before. due: when its call must have ended, infinity while
    it waits for its model's turn; waited: seconds that it did. The handler's thread writes these
    and what comes of the call; the link's thread writes the three below.

    settling: its outcome is on its way to the broker. given_up: its message was settled or lost in
    another way, so that what the handler brings is of no use any more. hung: the handler is past
    its deadline, and has not come back.
    """

    delivery: Delivery
    message: Message
    attempts: int
    received: float
    received_unix: float
    started: float = 0.0
    finished: float = 0.0
    due: float = math.inf
    waited: float = 0.0
    given_up: bool = False
    hung: bool = False
    settling: bool = False
    # What makes message of a body that is too large to be decoded in the connection's thread.
    read: Callable[[], Message] | None = None
    # Its result's fields that came with the message, in JSON, where read was used.
    passed_through: bytes = b""
    history: RefusalHistory = NO_HISTORY
    reply: Reply | None = None
    error: BaseException | None = None

    @property
    def waiting(self) -> bool:
        """Whether it waits for its model's turn, and nobody works on it."""
        return self.started > 0 and not self.finished and self.due == math.inf


class Handlers:
    """A fixed number of daemon threads, which a hung model call cannot keep from exiting."""

    def __init__(
        self,
        chain: Chain,
        *,
        threads: int,
        deadline: float,
        finished: Callable[[Work], None],
        wait: float | None = None,
        runtime: Runtime = REAL,
    ) -> None:
        """deadline: seconds for one analysis; wait: that a message may wait for a turn, by
        default `LONGEST_TURN_WAIT`."""
        self._chain = chain
        self._deadline = deadline
        self._wait = wait
        self._finished = finished
        self._now = runtime.monotonic
        self._queue = runtime.queue()
        self._reading = runtime.lock()
        self._running: list[Work | None] = [None] * threads
        for number in range(threads):
            runtime.start(f"handler-{number}", partial(self._serve, number))

    def submit(self, work: Work) -> None:
        """Have it analysed; `finished` is called with it, from a handler's thread."""
        self._queue.put(work)

    def running(self) -> list[Work]:
        """What is being analysed now, also what was given up meanwhile. From any thread."""
        return [work for work in self._running if work is not None]

    def _serve(self, number: int) -> None:
        while True:
            work: Work = self._queue.get()
            if work.given_up:
                continue
            now = self._now()
            work.due = now + self._deadline  # first: it would be taken for waiting
            work.started = now
            self._running[number] = work
            try:
                if work.read is not None:
                    self._read(work, work.read)
                    # Not the call's time: it may have waited for other large bodies.
                    work.due = self._now() + self._deadline
                    work.started = self._now()
                due = work.started + self._deadline
                work.reply = self._chain.ask(
                    work.message.text,
                    due,
                    wait=self._wait,
                    watched=work,
                    history=work.history,
                )
            except BaseException as error:  # noqa: BLE001 it is passed to the loop, which decides
                work.error = error
            work.finished = self._now()
            self._running[number] = None
            self._finished(work)

    def _read(self, work: Work, read: Callable[[], Message]) -> None:
        """Decode a large body; raises `PoisonError`. One at a time, and what is decoded beside the
        text does not stay: it can take thirty times the body's size."""
        with self._reading:
            message = read()
            work.passed_through = json.dumps(message.passed_through()).encode()
            work.message = replace(message, metadata=None, extra={})


class FinishedWork:
    """What handlers have finished, on its way to the link's thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """wake: has the link's thread call `take`, soon; it may be forgotten."""
        self._wake = wake
        self._finished: deque[Work] = deque()
        self._woken = False

    def put(self, work: Work) -> None:
        """From a handler's thread."""
        self._finished.append(work)
        if not self._woken:
            self._woken = True
            self._wake()

    def take(self) -> Iterator[Work]:
        """All that is there, one after the other. In the link's thread."""
        self._woken = False  # before the look: what comes later wakes the loop again
        while self._finished:
            yield self._finished.popleft()
