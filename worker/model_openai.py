"""The provider `openai`: any server that speaks OpenAI's chat completions, by langchain-openai."""

from __future__ import annotations

import threading
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
from langchain_openai import ChatOpenAI

from worker import prompt
from worker.logs import LOGGER
from worker.model import ModelConfig, ModelConfigError, brief, without_userinfo
from worker.model_chat import WARM_UP_TEXT, Chat, Http, refusal_of
from worker.negotiation import MOST_STEPS, Parameters, refused_parameter, text_of, without
from worker.task import Task

OPENAI = "https://api.openai.com/v1"
# Servers that want no key are given this one: the client insists on some.
_NO_KEY = "none"
# Hosts whose reasoning models know the limit by its newer name alone; others may not know that one.
_NEWER_LIMIT = ("api.openai.com", ".openai.azure.com", ".services.ai.azure.com")


def build(config: ModelConfig) -> Chat:
    """The openai provider. Raises `ModelConfigError`."""
    if not config.name:
        raise ModelConfigError(
            f"{config.setting('name')} is not set; {config.setting('provider')}=openai needs the "
            "name of a model on the server"
        )
    if not config.base_url and not config.api_key:
        raise ModelConfigError(
            f"neither {config.setting('base_url')} nor an API key is set; "
            f"{config.setting('provider')}=openai needs the URL of a compatible server "
            f"(http://host:port/v1), or OpenAI's key ({config.key_variable()})"
        )
    where = (config.base_url or OPENAI).rstrip("/")
    http = Http(config)
    client = httpx.Client(**http.settings)
    http.closers.append(client.close)
    negotiated = Negotiated(config, where, http, client)
    return Chat("openai", config.name, config, negotiated, where, http)


class Negotiated:
    """The model, asked with those parameters that its server takes.

    A refusal is looked into with our own text, never with a user's: what a text makes a server say
    changes no parameter. What was found holds for the process.
    """

    def __init__(self, config: ModelConfig, where: str, http: Http, client: httpx.Client) -> None:
        self._config = config
        self._where = where
        self._http = http
        self._client = client
        self._turn = threading.Lock()
        self._probe = prompt.messages(config.task, WARM_UP_TEXT)
        shape = "schema" if config.structured == "auto" else config.structured
        host = urlsplit(where).hostname or ""
        newer = host.endswith(_NEWER_LIMIT)
        self._now = Parameters(
            limit="max_completion_tokens" if newer else "max_tokens", structured=shape
        )
        self._chat = self._made(self._now)

    def invoke(self, messages: Any, /) -> Any:
        """The model's message."""
        used = self._now
        try:
            return self._chat.invoke(messages)
        except Exception as error:
            if self._refused(used, error) is None or not self._settled(used):
                raise
        return self._chat.invoke(messages)

    def _refused(self, used: Parameters, error: Exception) -> str | None:
        refusal = refusal_of(error)
        if refusal is None:
            return None
        return refused_parameter(used, *refusal, fixed=self._config.structured != "auto")

    def _settled(self, used: Parameters) -> bool:
        """Find what the server takes, with our own text. False where that changed nothing."""
        left = max(0.0, self._http.call.deadline - time.monotonic())
        if not self._turn.acquire(timeout=left):
            return False
        try:
            if self._now != used:
                return True  # another thread found it
            for _ in range(MOST_STEPS):
                try:
                    self._made(self._now).invoke(self._probe)
                except Exception as error:  # noqa: BLE001 the caller's own failure is told
                    if (name := self._refused(self._now, error)) is None:
                        break
                    self._change(name, error)
                else:
                    break
            return self._now != used
        finally:
            self._turn.release()

    def _change(self, name: str, error: Exception) -> None:
        _, body = refusal_of(error) or (0, "")
        said = brief(ValueError(text_of(body)), self._config)
        now = without(self._now, name)
        LOGGER.warning(
            "%s refuses the parameter %s; from now on sent: limit %s, seed %s, temperature %s, "
            "shape %s. To the warm-up text it said: %s",
            without_userinfo(self._where),
            name,
            now.limit,
            now.seed,
            now.temperature,
            now.structured,
            said,
        )
        self._chat, self._now = self._made(now), now

    def _made(self, now: Parameters) -> Any:
        config = self._config
        body: dict[str, Any] = {}
        settings: dict[str, Any] = {
            "model": config.name,
            "base_url": self._where,
            "api_key": config.api_key or _NO_KEY,
            "max_retries": 0,  # the worker tries again, and counts it
            "use_responses_api": False,
            "http_client": self._client,
        }
        if now.temperature:
            settings["temperature"] = config.temperature
        if now.limit == "max_completion_tokens":
            settings["max_completion_tokens"] = config.max_output_tokens
        elif now.limit:
            # The client renames its own max_tokens.
            body[now.limit] = config.max_output_tokens
        if now.seed:
            body[now.seed] = config.seed
        if body:
            settings["extra_body"] = body
        return _shaped(ChatOpenAI(**(settings | dict(config.options))), now.structured, config.task)


def _shaped(chat: Any, structured: str, task: Task) -> Any:
    """The model, told in which shape to answer."""
    match structured:
        case "schema":
            return chat.bind(response_format=json_schema(task))
        case "tools":
            return chat.bind_tools([tool(task)], tool_choice=task.name)
        case "json":
            return chat.bind(response_format={"type": "json_object"})
    return chat


def json_schema(task: Task) -> dict[str, Any]:
    """OpenAI's response_format of a task."""
    made = {"name": task.name, "schema": task.grammar(), "strict": True}
    return {"type": "json_schema", "json_schema": made}


def tool(task: Task) -> dict[str, Any]:
    """The task as a tool whose arguments are the answer."""
    description = f"Give the answer about the {task.subject}."
    made = {"name": task.name, "description": description, "parameters": task.grammar()}
    return {"type": "function", "function": made}
