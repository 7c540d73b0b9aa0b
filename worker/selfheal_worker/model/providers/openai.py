"""The provider `openai`: any server that speaks OpenAI's chat completions, by langchain-openai."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
from langchain_openai import ChatOpenAI

from selfheal_worker.model import schema_subsets
from selfheal_worker.model.errors import ModelConfigError
from selfheal_worker.model.negotiated import Negotiated
from selfheal_worker.model.negotiation import Parameters
from selfheal_worker.model.provider import ModelConfig
from selfheal_worker.model.providers import azure
from selfheal_worker.model.providers.chat import Chat, Http
from selfheal_worker.task.task import Task

OPENAI = "https://api.openai.com/v1"
# Servers that want no key are given this one: the client insists on some.
_NO_KEY = "none"
# Hosts whose reasoning models know the limit by its newer name alone; others may not know that one.
_NEWER_LIMIT = (
    *("api.openai.com", ".openai.azure.com", ".openai.azure.us", ".openai.azure.cn"),
    *(".services.ai.azure.com", ".services.ai.azure.us", ".services.ai.azure.cn"),
)
_LIMITS = ("max_tokens", "max_completion_tokens")
#: Options that are the client's, and never sent as parameters.
_OF_THE_CLIENT = {
    *("model", "model_name", "base_url", "api_key", "openai_api_base", "openai_api_key"),
    *("timeout", "request_timeout", "max_retries", "http_client", "default_headers"),
    *("default_query", "use_responses_api", "streaming", "organization", "openai_organization"),
    *("openai_proxy", "model_kwargs", "extra_body", "disabled_params", "tags", "metadata"),
}
#: Options that contain parameters.
_HOLDERS = ("model_kwargs", "extra_body")


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
    where = azure.address(config.base_url or OPENAI)
    http = Http(config)
    client = httpx.Client(**http.settings)
    http.bind(client)
    if where.classic:
        client.event_hooks["request"].append(_azure_key(config.api_key or ""))
    builder = _Builder(config, where, client)
    negotiated = Negotiated(config, where.base, http, builder.made, builder.start())
    return Chat("openai", config.name, config, negotiated, where.base, http)


def _azure_key(key: str) -> Any:
    """Azure's classic API takes a bearer for a token of Entra ID, and refuses a key there."""

    def carry(request: httpx.Request) -> None:
        request.headers.pop("Authorization", None)
        request.headers[azure.KEY_HEADER] = key

    return carry


class _Builder:
    """How the client is built, for the parameters that the server takes."""

    def __init__(self, config: ModelConfig, where: azure.Address, client: httpx.Client) -> None:
        self._config = config
        self._where = where
        self._client = client
        options = dict(config.options)
        # What the user says of these is sent under the name that the server takes.
        self._limit = config.max_output_tokens
        for name in _LIMITS:
            self._limit = options.pop(name, self._limit)
        self._seed = options.pop("seed", config.seed)
        self._temperature = options.pop("temperature", config.temperature)
        self._options = options

    def start(self) -> Parameters:
        """What is tried first."""
        host = urlsplit(self._where.base).hostname or ""
        structured = self._config.structured
        return Parameters(
            limit=None if self._limit is None else _LIMITS[host.endswith(_NEWER_LIMIT)],
            seed=None if self._seed is None else "seed",
            temperature=self._temperature is not None,
            structured="schema" if structured == "auto" else structured,
            options=frozenset(self._named()),
        )

    def _named(self) -> list[str]:
        names = [name for name in self._options if name not in _OF_THE_CLIENT]
        for holder in _HOLDERS:
            names += self._options.get(holder) or {}
        return names

    def made(self, now: Parameters) -> Any:
        """The client's model."""
        body: dict[str, Any] = {}
        settings: dict[str, Any] = {
            "model": self._config.name,
            "base_url": self._where.base,
            "api_key": self._config.api_key or _NO_KEY,
            "max_retries": 0,  # the worker tries again, and counts it
            "use_responses_api": False,
            "http_client": self._client,
        }
        if self._where.query:
            settings["default_query"] = dict(self._where.query)
        if now.temperature:
            settings["temperature"] = self._temperature
        if now.limit == "max_completion_tokens":
            settings["max_completion_tokens"] = self._limit
        elif now.limit:
            # The client renames its own max_tokens.
            body[now.limit] = self._limit
        if now.seed:
            body[now.seed] = self._seed
        options = _kept(self._options, now.refused)
        body |= options.pop("extra_body", None) or {}
        if body:
            settings["extra_body"] = body
        return _shaped(ChatOpenAI(**(settings | options)), now.structured, self._config.task)


def _kept(options: Mapping[str, Any], refused: frozenset[str]) -> dict[str, Any]:
    """The options without those that a server refused, also inside nested parameters."""
    kept = {name: value for name, value in options.items() if name not in refused}
    for holder in _HOLDERS:
        if isinstance(kept.get(holder), Mapping):
            kept[holder] = {n: value for n, value in kept[holder].items() if n not in refused}
    return kept


def _shaped(chat: Any, structured: str, task: Task) -> Any:
    """The model with its output constraint.

    Not by the client's own response_format: it would also parse the answer, and fail if a reply
    has an error and no answer.
    """
    match structured:
        case "schema":
            shape = schema_subsets.response_format(task)
        case "value":
            shape = {"type": "json_object", "value": schema_subsets.strict(task.grammar())}
        case "json":
            shape = {"type": "json_object"}
        case "tools":
            return chat.bind_tools([schema_subsets.tool(task)], tool_choice=task.name)
        case _:
            return chat
    return chat.bind(extra_body={**(chat.extra_body or {}), "response_format": shape})
