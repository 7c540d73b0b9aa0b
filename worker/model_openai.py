"""The provider `openai`: any server that speaks OpenAI's chat completions, by langchain-openai."""

from __future__ import annotations

from typing import Any

import httpx
from langchain_openai import ChatOpenAI

from worker.model import ModelConfig, ModelConfigError
from worker.model_chat import Chat, Http
from worker.task import Task

OPENAI = "https://api.openai.com/v1"
# Servers that want no key are given this one: the client insists on some.
_NO_KEY = "none"


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
    settings: dict[str, Any] = {
        "model": config.name,
        "base_url": where,
        "api_key": config.api_key or _NO_KEY,
        "temperature": config.temperature,
        "seed": config.seed,
        "max_completion_tokens": config.max_output_tokens,
        "max_retries": 0,  # the worker tries again, and counts it
        "use_responses_api": False,
        "http_client": client,
    }
    if where != OPENAI:
        # The older name of the limit, which many compatible servers know alone.
        settings["extra_body"] = {"max_tokens": config.max_output_tokens}
    chat = ChatOpenAI(**(settings | dict(config.options)))
    return Chat("openai", config.name, config, _shaped(chat, config), where, http)


def _shaped(chat: Any, config: ModelConfig) -> Any:
    """The model, told in which shape to answer."""
    match config.structured:
        case "auto" | "schema":
            return chat.bind(response_format=json_schema(config.task))
        case "tools":
            return chat.bind_tools([tool(config.task)], tool_choice=config.task.name)
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
