"""The parts of JSON schema that servers accept to constrain an answer, and OpenAI's forms. Pure.

What is left out here is still checked by the validation of the answer (`task.answer`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfheal_worker.task.task import Task

#: What OpenAI's strict mode takes for every model. Bounds of lengths are known to some models
#: alone, and neither to fine-tuned ones nor to Azure
#: (https://platform.openai.com/docs/guides/structured-outputs#supported-schemas,
#: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/structured-outputs).
#: vLLM takes these too, whichever backend it has: with xgrammar it refuses uniqueItems, contains,
#: multipleOf and lengths beside a pattern, and before 0.9 minItems and maxItems as well
#: (https://github.com/vllm-project/vllm/issues/16880, .../pull/17845, .../pull/30390).
_STRICT = ("type", "description", "enum", "items")
#: llama.cpp's parser of grammars refuses from 2,000 repetitions on, counted as a product where one
#: is inside of another (https://github.com/ggml-org/llama.cpp/issues/25746, .../27859).
_MOST_REPETITIONS = 1999


def strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A task's grammar for OpenAI's strict mode: all is required, and nothing else is allowed."""
    properties = {name: _strict(one) for name, one in schema["properties"].items()}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _strict(part: Mapping[str, Any]) -> dict[str, Any]:
    made = {name: part[name] for name in _STRICT if name in part}
    if "items" in made:
        made["items"] = _strict(made["items"])
    return made


def repeatable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A task's grammar without the bounds that llama.cpp's grammars cannot have."""
    properties = {name: _repeatable(one, 1) for name, one in schema["properties"].items()}
    return {**schema, "properties": properties}


def _repeatable(part: Mapping[str, Any], outer: int) -> dict[str, Any]:
    made = dict(part)
    if outer * made.get("maxLength", 0) > _MOST_REPETITIONS:
        del made["maxLength"]
    if made.get("maxItems", 0) > _MOST_REPETITIONS:
        del made["maxItems"]
    if "items" in made:
        made["items"] = _repeatable(made["items"], outer * made.get("maxItems", 1))
    return made


def response_format(task: Task) -> dict[str, Any]:
    """OpenAI's response_format of a task."""
    made = {"name": task.name, "schema": strict(task.grammar()), "strict": True}
    return {"type": "json_schema", "json_schema": made}


def tool(task: Task) -> dict[str, Any]:
    """The task as a tool of OpenAI's, whose arguments are the answer."""
    description = f"Give the answer about the {task.subject}."
    made = {"name": task.name, "description": description, "parameters": strict(task.grammar())}
    return {"type": "function", "function": made}
