"""The provider `langchain`: whatever LangChain's `init_chat_model` knows, by PROVIDER:MODEL."""

from __future__ import annotations

from typing import Any

from langchain.chat_models import init_chat_model

from worker.model import ModelConfig, ModelConfigError, brief
from worker.model_chat import Chat, Http
from worker.task import Task


def build(config: ModelConfig) -> Chat:
    """The langchain provider. Raises `ModelConfigError`; it names a package that is missing."""
    where = f"{config.setting('name')}={config.name}"
    if not config.name or ":" not in config.name:
        raise ModelConfigError(
            f"{where if config.name else config.setting('name') + ' is not set'}; "
            f"{config.setting('provider')}=langchain needs PROVIDER:MODEL, as LangChain's "
            "init_chat_model has them, such as anthropic:claude-sonnet-4-5"
        )
    try:
        chat = init_chat_model(config.name, **_settings(config))
    except ImportError as error:
        raise ModelConfigError(f"{where}: {error}") from error
    except (ValueError, TypeError) as error:
        raise ModelConfigError(
            f"{where}: {brief(error, config)}; {config.setting('options')} may add settings, and "
            "take one away with null"
        ) from None
    chain = _shaped(chat, config)
    return Chat(
        "langchain", config.name, config, chain, config.base_url or config.name, Http(config)
    )


def _settings(config: ModelConfig) -> dict[str, Any]:
    """What is handed to the model's class; an option that is null takes a setting away."""
    settings: dict[str, Any] = {
        "temperature": config.temperature,
        "max_tokens": config.max_output_tokens,
        "timeout": config.deadline,
        "max_retries": 0,
        "base_url": config.base_url,
        "api_key": config.api_key,
        **config.options,
    }
    return {name: value for name, value in settings.items() if value is not None}


def _shaped(chat: Any, config: ModelConfig) -> Any:
    """The model, told in which shape to answer; by tool calling, which most of them have."""
    if config.structured in ("auto", "tools"):
        try:
            return chat.bind_tools([_tool(config.task)], tool_choice="any")
        except (NotImplementedError, ValueError, TypeError) as error:
            if config.structured == "tools":
                raise ModelConfigError(
                    f"{config.setting('structured')}=tools: {config.name} calls no tools"
                ) from error
            return chat
    if config.structured == "schema":
        schema = config.task.grammar()
        made = {"name": config.task.name, "schema": schema, "strict": True}
        return chat.bind(response_format={"type": "json_schema", "json_schema": made})
    if config.structured == "json":
        return chat.bind(response_format={"type": "json_object"})
    return chat


def _tool(task: Task) -> dict[str, Any]:
    description = f"Give the answer about the {task.subject}."
    made = {"name": task.name, "description": description, "parameters": task.grammar()}
    return {"type": "function", "function": made}
