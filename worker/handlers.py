"""The threads that call the model."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from worker import verdict
from worker.message import Message
from worker.model import Answer, BadOutputError, Provider, TransientError
from worker.rabbitmq import Delivery
from worker.verdict import BadVerdictError, Verdict

# How soon a call goes on that hung on purpose.
_HANG_LOOK = 0.2


@dataclass(slots=True, eq=False)
class Work:
    """One message on its way through a handler. Times are `time.monotonic()`.

    started: when a thread took it, 0.0 before. given_up: its message was settled or lost in
    another way, so that what the handler brings is of no use any more.
    """

    delivery: Delivery
    message: Message
    attempts: int
    received: float
    received_unix: float
    started: float = 0.0
    finished: float = 0.0
    given_up: bool = False
    hung: bool = False
    settling: bool = False
    verdict: Verdict | None = None
    answer: Answer | None = None
    error: BaseException | None = None


class Handlers:
    """A fixed number of daemon threads, which a hung model call cannot keep from exiting."""

    def __init__(
        self,
        provider: Provider,
        *,
        threads: int,
        deadline: float,
        delay: float,
        hang_file: Path | None,
        finished: Callable[[Work], None],
    ) -> None:
        self._provider = provider
        self._deadline = deadline
        self._delay = delay
        self._hang_file = hang_file
        self._finished = finished
        self._queue: queue.SimpleQueue[Work] = queue.SimpleQueue()
        for number in range(threads):
            threading.Thread(target=self._serve, name=f"handler-{number}", daemon=True).start()

    def submit(self, work: Work) -> None:
        """Have it analysed; `finished` is called with it, from a handler's thread."""
        self._queue.put(work)

    def _serve(self) -> None:
        while True:
            work = self._queue.get()
            if work.given_up:
                continue
            work.started = time.monotonic()
            try:
                text = work.message.text
                answer = self._analyse(text, work.started + self._deadline)
                work.answer = answer
                work.verdict = verdict.check(answer.content, text)
            except BadVerdictError as error:
                work.error = BadOutputError(str(error))
            except BaseException as error:  # noqa: BLE001 it is told to the loop, which decides
                work.error = error
            work.finished = time.monotonic()
            self._finished(work)

    def _analyse(self, text: str, deadline: float) -> Answer:
        if self._delay:
            time.sleep(max(0.0, min(self._delay, deadline - time.monotonic())))
            if time.monotonic() >= deadline:
                raise TransientError("the model did not answer before the deadline")
        # As a driver or a socket without a time-out would: no deadline ends it.
        while self._hang_file is not None and self._hang_file.exists():
            time.sleep(_HANG_LOOK)
        return self._provider.analyse(text, deadline)
