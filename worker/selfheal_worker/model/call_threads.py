"""Calls in their own threads, for client libraries without deadlines.

A late call is abandoned: its thread ends when the library returns, and is counted until then. The
process exits without waiting for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, Protocol

from selfheal_worker.logs import LOGGER
from selfheal_worker.model.errors import ModelUnavailableError, OverloadedError, TransientError


class CallState(Protocol):
    """What a thread's call must know (`model.providers.chat.Call`)."""

    deadline: float
    pause: float | None


@dataclass(slots=True)
class _Started:
    """One call; ended is set when value or error is set."""

    ended: threading.Event = field(default_factory=threading.Event)
    value: Any = None
    error: BaseException | None = None
    pause: float | None = None
    given_up: bool = False


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
        started = _Started()
        try:
            threading.Thread(
                target=copy_context().run,  # with the call's turn
                args=(self._run, started, messages, deadline),
                name="model-call",
                daemon=True,
            ).start()
        except RuntimeError as error:  # the machine has no thread to spare
            raise ModelUnavailableError(f"no thread for the call: {error}") from None
        if not started.ended.wait(max(0.0, deadline - time.monotonic())):
            self._give_up(started)
        if started.given_up:
            raise TransientError("the model did not answer before the deadline")
        self._state.pause = started.pause
        if started.error is not None:
            raise started.error
        return started.value

    def _run(self, started: _Started, messages: Any, deadline: float) -> None:
        self._state.deadline = deadline
        self._state.pause = None
        try:
            started.value = self._call(messages)
        except BaseException as error:  # noqa: BLE001 raised again in the thread that waits
            started.error = error
        started.pause = self._state.pause
        with self._lock:
            started.ended.set()
            if started.given_up:
                self._abandoned -= 1

    def _give_up(self, started: _Started) -> None:
        with self._lock:
            if started.ended.is_set():
                return
            started.given_up = True
            self._abandoned += 1
            count = self._abandoned
        LOGGER.log(
            logging.WARNING,
            "a call to %s passed its deadline and was abandoned; %d such calls still run",
            self._name,
            count,
        )
