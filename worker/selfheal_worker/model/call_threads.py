"""Calls in their own threads, for client libraries without deadlines.

A late call is abandoned: its thread ends when the library returns, and is counted until then. The
process exits without waiting for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextvars import copy_context
from typing import Any, Protocol

from selfheal_worker.logs import LOGGER
from selfheal_worker.model.errors import ModelUnavailableError, OverloadedError, TransientError


class CallState(Protocol):
    """What a thread's call must know (`model.providers.chat.Call`)."""

    deadline: float
    pause: float | None


#: The model's message or what was raised, and the pause that came with it.
_Started = Future[tuple[Any, BaseException | None, float | None]]


class CallThreads:
    """A model whose calls end with the calling thread's deadline, whatever its library does."""

    def __init__(self, call: Callable[[Any], Any], state: CallState, most: int, name: str) -> None:
        self._call = call
        self._state = state
        self._most = most
        self._name = name
        self._lock = threading.Lock()
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
        started: _Started = Future()
        try:
            threading.Thread(
                target=copy_context().run,  # with the call's turn
                args=(self._run, started, messages, deadline),
                name="model-call",
                daemon=True,
            ).start()
        except RuntimeError as error:  # the machine has no thread to spare
            raise ModelUnavailableError(f"no thread for the call: {error}") from None
        if not wait([started], max(0.0, deadline - time.monotonic())).done:
            self._give_up(started)
        value, raised, self._state.pause = started.result()
        if raised is not None:
            raise raised
        return value

    def _run(self, started: _Started, messages: Any, deadline: float) -> None:
        self._state.deadline = deadline
        self._state.pause = None
        value, raised = None, None
        try:
            value = self._call(messages)
        except BaseException as error:  # noqa: BLE001 raised again in the thread that waits
            raised = error
        with self._lock:
            if started.set_running_or_notify_cancel():
                started.set_result((value, raised, self._state.pause))
            else:
                self._abandoned -= 1

    def _give_up(self, started: _Started) -> None:
        """Raises TransientError, unless it ends just now."""
        with self._lock:
            if not started.cancel():
                return
            self._abandoned += 1
            count = self._abandoned
        LOGGER.log(
            logging.WARNING,
            "a call to %s passed its deadline and was abandoned; %d such calls still run",
            self._name,
            count,
        )
        raise TransientError("the model did not answer before the deadline")
