"""Calls in their own threads, for client libraries without deadlines.

A late call is abandoned: its thread ends when the library returns, and is counted until then. The
process exits without waiting for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any, Protocol

from selfheal_worker.logs import LOGGER
from selfheal_worker.model.errors import ModelUnavailableError, OverloadedError, TransientError
from selfheal_worker.runtime import REAL, Runtime


class CallState(Protocol):
    """What a thread's call must know (`model.providers.chat.Call`)."""

    deadline: float
    pause: float | None


class _Started:
    """A call that runs in a thread of its own: how it ended, or that nobody waits for it."""

    def __init__(self, runtime: Runtime) -> None:
        self.ended = runtime.event()
        self.abandoned = False
        self.value: Any = None
        self.raised: BaseException | None = None
        self.pause: float | None = None


class CallThreads:
    """A model whose calls end with the calling thread's deadline, whatever its library does."""

    def __init__(
        self,
        call: Callable[[Any], Any],
        state: CallState,
        most: int,
        name: str,
        runtime: Runtime = REAL,
    ) -> None:
        self._call = call
        self._state = state
        self._most = most
        self._name = name
        self._runtime = runtime
        self._lock = runtime.lock()
        self._abandoned = 0

    @property
    def abandoned(self) -> int:
        """Calls past their deadline that still run."""
        return self._abandoned

    def invoke(self, messages: Any, /) -> Any:
        """The model's message. Raises TransientError at the deadline, and what the library does."""
        if self._abandoned >= self._most:
            raise OverloadedError(
                f"{self._abandoned} calls to {self._name} that passed their deadline still run; "
                "no call is started until one ends"
            )
        deadline = self._state.deadline
        started = _Started(self._runtime)
        run = partial(self._run, started, messages, deadline)
        try:
            # In a copy of the context: with the call's turn.
            self._runtime.start("model-call", partial(copy_context().run, run))
        except RuntimeError as error:  # the machine has no thread to spare
            raise ModelUnavailableError(f"no thread for the call: {error}") from None
        if not started.ended.wait(max(0.0, deadline - self._runtime.monotonic())):
            self._give_up(started)
        self._state.pause = started.pause
        if started.raised is not None:
            raise started.raised
        return started.value

    def _run(self, started: _Started, messages: Any, deadline: float) -> None:
        self._state.deadline = deadline
        self._state.pause = None
        try:
            started.value = self._call(messages)
        except BaseException as error:  # noqa: BLE001 raised again in the thread that waits
            started.raised = error
        started.pause = self._state.pause
        with self._lock:
            if started.abandoned:
                self._abandoned -= 1
            else:
                started.ended.set()

    def _give_up(self, started: _Started) -> None:
        """Raises TransientError, unless it ends just now."""
        with self._lock:
            if started.ended.is_set():
                return
            started.abandoned = True
            self._abandoned += 1
            count = self._abandoned
        LOGGER.log(
            logging.WARNING,
            "a call to %s passed its deadline and was abandoned; %d such calls still run",
            self._name,
            count,
        )
        raise TransientError("the model did not answer before the deadline")
