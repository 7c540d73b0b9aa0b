"""OpenAI's chat completions, and the rules of its reasoning models.

https://platform.openai.com/docs/api-reference/chat/create
https://platform.openai.com/docs/guides/reasoning
https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
The form of its refusals: https://github.com/openai/openai-python/issues/1724 and
https://github.com/OpenHands/software-agent-sdk/issues/1083
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tests.pure.worker.dialects.dialect import KEY, Dialect, Reply, Request, has_both_limits

PARAMETERS = {
    *("model", "messages", "temperature", "top_p", "n", "stream", "stream_options", "stop"),
    *("max_tokens", "max_completion_tokens", "presence_penalty", "frequency_penalty", "logit_bias"),
    *("logprobs", "top_logprobs", "user", "seed", "tools", "tool_choice", "parallel_tool_calls"),
    *("response_format", "store", "metadata", "reasoning_effort", "service_tier", "modalities"),
}
_KEYWORDS = {"type", "description", "enum", "items", "properties", "required"} | {
    "additionalProperties",
    "anyOf",
    "$ref",
    "$defs",
}


class OpenAI(Dialect):
    """A chat model."""

    name = "OpenAI"

    def refuses(self, request: Request) -> Reply | None:
        body = request.body
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return self.error(401, "Incorrect API key provided", "invalid_api_key")
        for name in sorted(set(body) - PARAMETERS):
            return self.error(400, f"Unrecognized request argument supplied: {name}")
        if has_both_limits(body):
            return self.error(400, "max_tokens and max_completion_tokens cannot both be set")
        return self._schema(body)

    def _schema(self, body: Mapping[str, Any]) -> Reply | None:
        shape = body.get("response_format") or {}
        named = shape.get("json_schema", {})
        schemas = [("response_format", named.get("name"), named)] if named.get("strict") else []
        for place, name, one in schemas:
            for problem in strict_problems(one["schema"]):
                said = f"Invalid schema for {place} '{name}': {problem}"
                return self.error(400, said, None, place)
        return None


def strict_problems(schema: Mapping[str, Any], where: str = "()") -> Iterator[str]:
    """What strict mode does not take in a schema."""
    for keyword in sorted(set(schema) - _KEYWORDS):
        yield f"In context={where}, '{keyword}' is not permitted."
    if not {"type", "anyOf", "$ref"} & schema.keys():
        yield f"In context={where}, schema must have a 'type' key."
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False:
            yield f"In context={where}, 'additionalProperties' is required to be false."
        if set(schema.get("required", ())) != set(properties):
            yield f"In context={where}, 'required' must include every key in properties."
        for name, part in properties.items():
            yield from strict_problems(part, f"('properties', '{name}')")
    if "items" in schema:
        yield from strict_problems(schema["items"], f"{where}, 'items'")


class Reasoning(OpenAI):
    """An o-series model."""

    name = "OpenAI, reasoning models"

    def refuses(self, request: Request) -> Reply | None:
        if "max_tokens" in request.body:
            said = (
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead."
            )
            return self.error(400, said, "unsupported_parameter", "max_tokens")
        for name, default in (("temperature", 1), ("top_p", 1), ("frequency_penalty", 0)):
            if request.body.get(name, default) != default:
                said = f"Unsupported value: '{name}' does not support this value with this model."
                return self.error(400, said, "unsupported_value", name)
        return super().refuses(request)
