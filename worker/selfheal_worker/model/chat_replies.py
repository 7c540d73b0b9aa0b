"""What a chat model's answer contains, as LangChain and OpenAI's client hand it over. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfheal_worker.model import finish_reasons
from selfheal_worker.model.errors import BadOutputError
from selfheal_worker.model.provider import Answer, Usage, counted

# Of an answer's text: finding JSON in more takes seconds that no deadline limits.
_LONGEST_CONTENT = 1 << 20


def content_of(reply: Any, tool: str = "") -> str | Mapping[str, Any]:
    """The answer's JSON: a tool's arguments, else the text without what is no text (reasoning)."""
    calls = getattr(reply, "tool_calls", None)
    if calls:
        call = next((one for one in calls if one.get("name") == tool), calls[0])
        arguments: Mapping[str, Any] = call["args"]
        return arguments
    # Arguments that are no JSON, such as those of a call that was cut off.
    for call in getattr(reply, "invalid_tool_calls", None) or ():
        if isinstance(call.get("args"), str) and call["args"].strip():
            return _short_enough(str(call["args"]))
    content = getattr(reply, "content", None)
    if isinstance(content, list):
        parts = [p if isinstance(p, str) else p.get("text", "") for p in content]
        content = "".join(part for part in parts if isinstance(part, str))
    if not isinstance(content, str) or not content.strip():
        raise finish_reasons.empty(reply)
    return _short_enough(content)


def _short_enough(content: str) -> str:
    if len(content) > _LONGEST_CONTENT:
        raise BadOutputError(f"the reply has {len(content)} characters, more than any valid answer")
    return content


def cut_off(error: Exception) -> Answer | None:
    """What there is of an answer that met its limit of tokens; OpenAI's client raises it."""
    completion = getattr(error, "completion", None)
    usage, choices = (getattr(completion, name, None) for name in ("usage", "choices"))
    if not choices:
        return None
    message = choices[0].message
    calls = getattr(message, "tool_calls", None)
    content = message.content or (calls[0].function.arguments if calls else "")
    if not content.strip():
        raise BadOutputError(finish_reasons.CUT_OFF)
    tokens = {
        "input_tokens": getattr(usage, "prompt_tokens", None),
        "output_tokens": getattr(usage, "completion_tokens", None),
    }
    return Answer(_short_enough(content), usage_of(tokens))


def usage_of(metadata: Any) -> Usage | None:
    """The tokens that LangChain says a call took."""
    if not isinstance(metadata, Mapping):
        return None
    return counted(metadata.get("input_tokens"), metadata.get("output_tokens"))
