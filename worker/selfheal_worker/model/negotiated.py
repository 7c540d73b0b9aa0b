"""A model that is called with the parameters that its server accepts.

A refusal is examined with our own text, never with a user's, so that no text can change a
parameter. The result applies until the process ends. Each request that is sent beside the first
counts in the model's limits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from selfheal_worker.logs import LOGGER
from selfheal_worker.model.causes import with_own_causes
from selfheal_worker.model.negotiation import (
    MOST_STEPS,
    Parameters,
    refused_parameter,
    text_of,
    without,
)
from selfheal_worker.model.provider import ModelConfig, brief, without_userinfo
from selfheal_worker.model.providers.chat import WARM_UP_TEXT, Http, Model, refusal_of
from selfheal_worker.model.turns import next_request
from selfheal_worker.task import prompt


class Negotiated:
    """The model; made builds it for parameters, where names the server in logs."""

    def __init__(
        self,
        config: ModelConfig,
        where: str,
        http: Http,
        made: Callable[[Parameters], Model],
        start: Parameters,
    ) -> None:
        self._config = config
        self._where = where
        self._http = http
        self._made = made
        self._turn = config.runtime.lock()
        self._ours = prompt.messages(config.task, WARM_UP_TEXT)
        self._fixed = config.structured != "auto"
        # In one piece: threads read it while another changes it.
        self._state = (start, made(start))

    @property
    def bound(self) -> Any:
        """The client library's model with the current parameters."""
        return getattr(self._state[1], "bound", self._state[1])

    def invoke(self, messages: Any, /) -> Any:
        """The model's message."""
        ours = list(messages) == self._ours
        for step in range(MOST_STEPS + 1):
            if step:
                self._next_request()
            used, chat = self._state
            try:
                return with_own_causes(chat.invoke, messages)
            except Exception as error:
                if step == MOST_STEPS or self._refused(used, error) is None:
                    raise
                if not self._settled(used, error if ours else None):
                    raise
        raise AssertionError("the last step returns or raises")

    def _next_request(self) -> None:
        call = self._http.call
        next_request(call.deadline, call.pause, self._config.runtime.monotonic)

    def _refused(self, used: Parameters, error: Exception) -> str | None:
        refusal = refusal_of(error)
        return refused_parameter(used, *refusal, fixed=self._fixed) if refusal else None

    def _settled(self, used: Parameters, error: Exception | None) -> bool:
        """Change what is refused to our own text; error: what that was answered, if it was sent.

        False where nothing was changed.
        """
        left = max(0.0, self._http.call.left())
        if not self._turn.acquire(timeout=left):
            return False
        try:
            if self._state[0] != used:
                return True  # another thread found it
            if error is not None:
                return self._changed(error)
            for _ in range(MOST_STEPS):
                self._next_request()
                try:
                    with_own_causes(self._state[1].invoke, self._ours)
                except Exception as again:  # noqa: BLE001 the caller's own failure is raised
                    if not self._changed(again):
                        break
                else:
                    break
            return self._state[0] != used
        finally:
            self._turn.release()

    def _changed(self, error: Exception) -> bool:
        """Leave out or rename what our own text was refused for."""
        before = self._state[0]
        name = self._refused(before, error)
        if name is None:
            return False
        _, body = refusal_of(error) or (0, "")
        now = without(before, name, text_of(body))
        LOGGER.warning(
            "%s refuses the parameter %s%s; from now on sent: limit %s, seed %s, temperature %s, "
            "shape %s. Its answer to the warm-up text: %s",
            without_userinfo(self._where),
            name,
            f" of {self._config.setting('options')}" if name in before.options else "",
            now.limit,
            now.seed,
            now.temperature,
            now.structured,
            brief(ValueError(text_of(body)), self._config),
        )
        self._state = (now, self._made(now))
        return True
