"""A model server that is as strict as a real one, in one dialect at a time. Pure.

A dialect says what its server refuses and in which forms it answers. `server.serving` speaks HTTP
for it on loopback, and the simulation (`tests/simulation/models/`) in virtual time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ANSWER = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": ["very well"],
}
TEXT = "It works very well."
KEY = "sk-of-the-test"


@dataclass(frozen=True)
class Request:
    """One request as it came; headers with small letters."""

    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    """A status, a body (JSON, or text as it is) and headers."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


#: How an answer may look: each server can be made to give each.
ANSWERS = ("plain", "thinking", "fenced", "talking", "tool call", "no usage", "null usage")
#: The headers by which servers say when they may be asked again, and the seconds that are meant.
PAUSES: Mapping[str, tuple[dict[str, str], float | None]] = {
    "429": ({}, None),
    "429 Retry-After": ({"Retry-After": "7"}, 7.0),
    "429 Retry-After as a fraction": ({"Retry-After": "0.5"}, 0.5),
    "429 Retry-After as a past date": ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
    "429 retry-after-ms": ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
    "429 x-ratelimit requests": (
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2s"},
        62.0,
    ),
    "429 x-ratelimit tokens": (
        {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "250ms"},
        0.25,
    ),
    "503": ({}, None),
    "503 Retry-After": ({"Retry-After": "3"}, 3.0),
    "529": ({}, None),
}
#: A refused text, and the reason of its dead letter.
REFUSALS: Mapping[str, str] = {
    "too long": "text_too_long",
    "filtered": "content_filtered",
    "filtered answer": "content_filtered",
    "declined": "refused_by_model",
}


class Dialect:
    """A server with OpenAI's chat completions; subclasses are the servers that people use."""

    name = "OpenAI's protocol"
    base = "/v1"
    path = "/v1/chat/completions"

    def __init__(self) -> None:
        self.way = "plain"
        #: What the model says of a text.
        self.answer: Mapping[str, Any] = ANSWER

    # --- what is refused

    def refuses(self, request: Request) -> Reply | None:
        """The refusal of a request that the real server refuses."""
        return None

    def error(self, status: int, message: str, code: Any = None, param: Any = None) -> Reply:
        """An error in the server's form."""
        kind = "invalid_request_error" if status < 429 else "server_error"
        error = {"message": message, "type": kind, "param": param, "code": code}
        return Reply(status, {"error": error})

    # --- how it answers

    def answers(self, request: Request) -> Reply:
        """The reply to a request that is taken, in the way that was chosen."""
        way = self.way
        if way in PAUSES:
            status = int(way[:3])
            refused = self.overloaded(status)
            return Reply(status, refused.body, PAUSES[way][0])
        if way == "too long":
            return self.too_long()
        if way == "filtered":
            return self.filtered()
        return self.completed(way, request)

    def overloaded(self, status: int) -> Reply:
        """The error of a server without room."""
        return self.error(status, "Rate limit reached, try again later", "rate_limit_exceeded")

    def too_long(self) -> Reply:
        """The error for a text that does not fit."""
        said = "This model's maximum context length is 4096 tokens. However, it is longer"
        return self.error(400, said, "context_length_exceeded", "messages")

    def filtered(self) -> Reply:
        """The error for a text that a moderation refuses."""
        return self.error(400, "The prompt breaks our usage policy", "content_policy_violation")

    def completed(self, way: str, request: Request) -> Reply:
        """A reply of status 200."""
        message: dict[str, Any] = {"role": "assistant", "content": reply_text(way, self.answer)}
        finish = "stop"
        if way == "tool call" or request.body.get("tools"):
            name = (request.body.get("tools") or [{}])[0].get("function", {}).get("name", "emotion")
            whole = json.dumps(self.answer)
            arguments = whole[:30] if way == "cut off" else whole
            call = {"id": "call_1", "type": "function"}
            call_of = {"function": {"name": name, "arguments": arguments}}
            if way not in ("filtered answer", "declined"):
                message |= {"content": None, "tool_calls": [call | call_of]}
                finish = "tool_calls"
        if way == "cut off":
            finish = "length"
        elif way == "filtered answer":
            message["content"], finish = "", "content_filter"
        elif way == "declined":
            message |= {"content": None, "refusal": "I cannot help with that."}
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        made = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
        usage: dict[str, Any] = {"prompt_tokens": 500, "completion_tokens": 9, "total_tokens": 509}
        if way == "null usage":
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        counted = {} if way == "no usage" else {"usage": usage}
        return Reply(200, made | {"choices": [choice]} | counted)


def reply_text(way: str, answer: Mapping[str, Any] = ANSWER) -> str:
    """The words of an answer."""
    whole = json.dumps(answer)
    match way:
        case "thinking":
            return f'<think>Hm, {{"primary_emotion": "Fear"}}?</think>\n{whole}'
        case "fenced":
            return f"```json\n{whole}\n```"
        case "talking":
            return f"Here it is: {whole} I hope that {{this}} helps."
        case "cut off":
            return whole[:30]
    return whole


def has_both_limits(body: Mapping[str, Any]) -> bool:
    """No server takes two limits of an answer."""
    return {"max_tokens", "max_completion_tokens"} <= body.keys()
