"""The provider `langchain`: whatever LangChain's `init_chat_model` knows, by PROVIDER:MODEL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from langchain.chat_models import init_chat_model

from selfheal_worker.model import schema_subsets
from selfheal_worker.model.call_threads import CallThreads
from selfheal_worker.model.errors import ModelConfigError
from selfheal_worker.model.negotiated import Negotiated
from selfheal_worker.model.negotiation import Parameters
from selfheal_worker.model.provider import ModelConfig, brief
from selfheal_worker.model.providers.chat import Chat, Http, tokens_to_request

#: Classes that take an HTTP client of ours, whose time-outs end with the call's deadline. Others
#: have a time-out of their own name and meaning, or none: their calls run in threads.
_OPENAI = ("openai", "azure_openai")
_OLLAMA = "ollama"
#: Options that are not sent to a server.
_OF_THE_CLIENT = {
    *("model", "model_provider", "base_url", "api_key", "timeout", "max_retries", "client_kwargs"),
    *("sync_client_kwargs", "default_headers", "http_client", "streaming", "model_kwargs"),
    *("extra_body", "azure_endpoint", "azure_deployment", "api_version", "temperature", "seed"),
    *("max_tokens", "max_completion_tokens", "num_ctx", "num_predict", "reasoning"),
}


def build(config: ModelConfig) -> Chat:
    """The langchain provider. Raises `ModelConfigError`; it names a package that is missing."""
    where = f"{config.setting('name')}={config.name}"
    if not config.name or ":" not in config.name:
        raise ModelConfigError(
            f"{where if config.name else config.setting('name') + ' is not set'}; "
            f"{config.setting('provider')}=langchain needs PROVIDER:MODEL, as LangChain's "
            "init_chat_model has them, such as anthropic:claude-sonnet-4-5"
        )
    http = Http(config)
    builder = _Builder(config, http)
    server = config.base_url or config.name
    try:
        negotiated = Negotiated(config, server, http, builder.made, builder.start())
    except ImportError as error:
        raise ModelConfigError(f"{where}: {error}") from error
    except (ValueError, TypeError) as error:
        raise ModelConfigError(
            f"{where}: {brief(error, config)}; {config.setting('options')} may add settings, and "
            "take one away with null"
        ) from None
    chat: Any = negotiated
    if not builder.bounded:
        most = 2 * config.concurrency
        chat = CallThreads(negotiated.invoke, http.call, most, config.name, config.runtime)
    made = Chat("langchain", config.name, config, chat, server, http)
    made.context_tokens = builder.context_tokens
    return made


class _Builder:
    """How the class's model is built, for the parameters that the server takes."""

    def __init__(self, config: ModelConfig, http: Http) -> None:
        self._config = config
        self._kind = (config.name or "").partition(":")[0].replace("-", "_")
        self._bind = http.bind
        self._http: dict[str, Any] = {}
        self.context_tokens: int | None = None
        if self._kind in _OPENAI:
            client = httpx.Client(**http.settings)
            http.bind(client)
            self._http = {"http_client": client}
        elif self._kind == _OLLAMA:
            self._http = self._for_ollama(http)

    @property
    def bounded(self) -> bool:
        """Whether the calls end with the deadline by themselves."""
        return bool(self._http)

    def start(self) -> Parameters:
        """What is tried first."""
        structured = self._config.structured
        return Parameters(
            limit="max_completion_tokens" if self._kind in _OPENAI else "max_tokens",
            seed=None,
            structured="tools" if structured == "auto" else structured,
            options=frozenset(set(self._config.options) - _OF_THE_CLIENT),
        )

    def made(self, now: Parameters) -> Any:
        """The class's model. Raises what the class raises, and `ModelConfigError`."""
        chat = init_chat_model(self._config.name or "", **self._settings(now))
        if self._kind == _OLLAMA:
            self._bind(chat._client._client)
        return _shaped(chat, self._config, now.structured, whole=self._kind == _OLLAMA)

    def _settings(self, now: Parameters) -> dict[str, Any]:
        """What is handed to the class; an option that is null takes a setting away."""
        config = self._config
        settings: dict[str, Any] = {
            "temperature": config.temperature,
            "max_tokens": config.max_output_tokens,
            "timeout": config.deadline,
            "max_retries": 0,
            "base_url": config.base_url,
            "api_key": config.api_key,
            **self._http,
            **{name: v for name, v in config.options.items() if name not in now.refused},
        }
        for own in ("client_kwargs", "http_client"):
            if own in self._http:
                settings[own] = self._http[own]
        if not now.temperature:
            settings["temperature"] = None
        # Other classes have one name for the limit, and rename it themselves.
        if now.limit is None or (self._kind not in _OPENAI and "max_tokens" in now.refused):
            settings["max_tokens"] = None
        elif self._kind in _OPENAI and now.limit == "max_tokens":
            # The class renames its own max_tokens.
            limit = {"max_tokens": settings.pop("max_tokens")}
            settings["extra_body"] = limit | (settings.get("extra_body") or {})
        if self._kind == _OLLAMA:
            for name in ("timeout", "max_retries", "api_key"):  # client_kwargs has them
                settings.pop(name)
            limit = settings.pop("max_tokens")
            settings.setdefault("num_predict", limit)
        return {name: value for name, value in settings.items() if value is not None}

    def _for_ollama(self, http: Http) -> dict[str, Any]:
        """Timeouts, the key, and a context that fits the text (as `model.providers.ollama`)."""
        config = self._config
        tokens = tokens_to_request(config)
        given = config.options.get("num_ctx", tokens)
        self.context_tokens = given if isinstance(given, int) else None
        own = config.options.get("client_kwargs")
        client = {**own, **http.settings} if isinstance(own, Mapping) else dict(http.settings)
        if config.api_key:
            client["headers"] = {
                **(client.get("headers") or {}),
                "Authorization": f"Bearer {config.api_key}",
            }
        return {"client_kwargs": client, "num_ctx": tokens, "seed": config.seed, "reasoning": False}


def _shaped(chat: Any, config: ModelConfig, structured: str, *, whole: bool) -> Any:
    """The model with its output constraint; whole: without streaming, as a stream has no end."""
    more: dict[str, Any] = {"stream": False} if whole else {}
    if structured == "tools":
        try:
            return chat.bind_tools([schema_subsets.tool(config.task)], tool_choice="any", **more)
        except (NotImplementedError, ValueError, TypeError) as error:
            if config.structured == "tools":
                raise ModelConfigError(
                    f"{config.setting('structured')}=tools: {config.name} calls no tools"
                ) from error
    elif structured == "schema":
        return chat.bind(response_format=schema_subsets.response_format(config.task), **more)
    elif structured == "json":
        return chat.bind(response_format={"type": "json_object"}, **more)
    return chat.bind(**more) if more else chat
