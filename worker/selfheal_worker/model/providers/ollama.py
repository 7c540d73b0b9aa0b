"""The provider `ollama`: a model on an Ollama server, through langchain-ollama.

The answer is constrained to the task's schema by the server (`format`).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import httpx
from langchain_ollama import ChatOllama

from selfheal_worker.model import schema_subsets
from selfheal_worker.model.causes import with_own_causes
from selfheal_worker.model.errors import (
    ModelConfigError,
    ModelError,
    ModelUnavailableError,
    TransientError,
)
from selfheal_worker.model.negotiated import Negotiated
from selfheal_worker.model.negotiation import Parameters
from selfheal_worker.model.provider import Answer, ModelConfig
from selfheal_worker.model.providers.chat import Chat, Http, explain, tokens_to_request
from selfheal_worker.task import prompt

# How long it may take to name the digest, at first and beside a call; and how long it holds.
_FIRST_LOOK, _LATER_LOOK, FRESH = 5.0, 2.0, 2.0
#: Seconds since the last look-up after which one is overdue: under load one follows the other.
_OVERDUE = 3 * FRESH
DEFAULT_BASE_URL = "http://127.0.0.1:11434"


class Ollama(Chat):
    """A model on an Ollama server."""

    _own_version = True

    def __init__(self, config: ModelConfig, model: str) -> None:
        http = Http(config)
        base_url = (config.base_url or DEFAULT_BASE_URL).rstrip("/")
        settings: dict[str, Any] = {
            # Otherwise the server uses 4,096 and truncates longer input silently (ollama#3839). The
            # same for each call: another value would have it load the model again.
            "num_ctx": tokens_to_request(config),
            "reasoning": False,
            "temperature": config.temperature,
            "seed": config.seed,
            "num_predict": config.max_output_tokens,
        }
        settings |= dict(config.options)
        tokens: int | None = settings["num_ctx"]
        if config.api_key:
            http.settings["headers"] = {"Authorization": f"Bearer {config.api_key}"}
        chat = ChatOllama(
            model=model,
            base_url=base_url,
            client_kwargs=http.settings,
            **settings,
        )
        self._client: httpx.Client = chat._client._client
        http.bind(self._client)
        self._checking = config.runtime.lock()
        self._checked = 0.0
        # In one piece: a time-out between the pieces of a stream would not bound the whole.
        shapes: dict[str, dict[str, Any]] = {
            "schema": {"format": schema_subsets.repeatable(config.task.grammar())},
            "json": {"format": "json"},
            "none": {},
        }
        shape = "schema" if config.structured == "auto" else config.structured
        negotiated = Negotiated(
            config,
            base_url,
            http,
            partial(_shaped, chat, shapes),
            Parameters(limit=None, seed=None, temperature=False, structured=shape),
        )
        super().__init__("ollama", model, config, negotiated, base_url, http)
        self.context_tokens = tokens

    def warm_up(self) -> None:
        """Find the model's digest, and have the server load the model."""
        self.version = self._digest(_FIRST_LOOK)
        self._checked = self._runtime.monotonic()
        super().warm_up()

    def _ask(
        self, messages: Sequence[prompt.Message], deadline: float, *, ours: bool = False
    ) -> Answer:
        self._look_again(deadline)
        return super()._ask(messages, deadline, ours=ours)

    def _look_again(self, deadline: float) -> None:
        """Check whether the model was pulled again, in one thread and not for each call.

        After a quiet time, calls at the same time wait for what that thread finds. If the server
        does not answer, the previous version stays.
        """
        now = self._runtime.monotonic()
        left = min(_LATER_LOOK, (deadline - now) / 4)
        if not self.version or now - self._checked < FRESH or left <= 0:
            return
        # After a quiet time nobody knows the version: a call beside the look-up waits for it.
        waits = left if now - self._checked > _OVERDUE else 0.0
        if not self._checking.acquire(timeout=waits):
            return
        try:
            if self._runtime.monotonic() - self._checked < FRESH:
                return
            with contextlib.suppress(ModelError):
                self.version = self._digest(left)
            self._checked = self._runtime.monotonic()
        finally:
            self._checking.release()

    def _digest(self, seconds: float) -> str:
        """The first characters of the model's digest, as `ollama list` shows them."""
        call = self._http.call
        until, call.deadline = call.deadline, self._runtime.monotonic() + seconds
        try:
            # With the client's headers: they have the key, or the user and password of the URL.
            reply = with_own_causes(self._client.get, f"{self._where}/api/tags")
            reply.raise_for_status()
            digests = {one["name"]: _digest_of(one) for one in json.loads(reply.content)["models"]}
        except ModelError:
            raise
        except httpx.HTTPStatusError:
            raise TransientError(f"{self._where} answered {reply.status_code}") from None
        except httpx.HTTPError as error:
            raise _no_answer(error, self._where, self._runtime.time()) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ModelUnavailableError(
                f"{self._where} does not answer like an Ollama server"
            ) from None
        finally:
            call.deadline = until
        for name in (self.model, f"{self.model}:latest"):
            if name in digests:
                return digests[name]
        raise ModelUnavailableError(
            f"model '{self.model}' is not on {self._where}; pull it there first"
        )


def _shaped(chat: ChatOllama, shapes: Mapping[str, dict[str, Any]], now: Parameters) -> Any:
    return chat.bind(stream=False, **shapes[now.structured])


def _digest_of(listed: Mapping[str, Any]) -> str:
    """Raises KeyError and TypeError where what a server lists has no digest."""
    if not isinstance(listed["digest"], str):
        raise TypeError
    return listed["digest"][:12]


def _no_answer(error: httpx.HTTPError, where: str, now: float) -> ModelUnavailableError:
    """What it means that a probe of the server was not answered."""
    strange = isinstance(error, httpx.RemoteProtocolError | httpx.DecodingError)
    if strange and "disconnected" not in str(error):  # a server that stops just goes
        return ModelUnavailableError(f"{where} does not answer like an Ollama server")
    failure = explain(error, where, "", now=now)
    if isinstance(failure, ModelUnavailableError):
        return failure
    return ModelUnavailableError(f"no answer from {where}")


def build(config: ModelConfig) -> Ollama:
    """The ollama provider. Raises `ModelConfigError` where the model's name is missing."""
    if not config.name:
        raise ModelConfigError(
            f"{config.setting('name')} is not set; {config.setting('provider')}=ollama needs the "
            "name of a model on the server, such as smollm2:135m"
        )
    if config.structured == "tools":
        raise ModelConfigError(
            f"{config.setting('structured')}=tools: ollama knows auto, schema, json and none"
        )
    return Ollama(config, config.name)
