"""Ollama's own API, of versions with and without structured outputs.

https://github.com/ollama/ollama/blob/main/docs/api.md
Before 0.5 `format` was a string: https://github.com/Kiln-AI/Kiln/issues/186; a full queue:
https://github.com/ollama/ollama/issues/4124; a model without tools:
https://github.com/ollama/ollama/issues/11131
"""

from __future__ import annotations

from typing import Any

from tests.pure.worker.dialects.dialect import Dialect, Reply, Request, reply_text


class Ollama(Dialect):
    """From 0.5 on."""

    name = "Ollama"
    base = ""
    path = "/api/chat"

    def refuses(self, request: Request) -> Reply | None:
        form = request.body.get("format")
        if form == "" or not isinstance(form, str | dict | None):
            return self.error(400, 'invalid format: expected "json" or a JSON schema')
        return None

    def error(self, status: int, message: str, code: Any = None, param: Any = None) -> Reply:
        return Reply(status, {"error": message})

    def answers(self, request: Request) -> Reply:
        if request.path == "/api/tags":
            return Reply(200, {"models": [{"name": "m:latest", "digest": "0123456789abcdef"}]})
        return super().answers(request)

    def overloaded(self, status: int) -> Reply:
        said = "server busy, please try again.  maximum pending requests exceeded"
        return self.error(status, said)

    def too_long(self) -> Reply:
        return self.error(400, "the input length exceeds the context length")

    def filtered(self) -> Reply:
        return self.error(400, "the prompt was flagged by the moderation")

    def completed(self, way: str, request: Request) -> Reply:
        message: dict[str, Any] = {"role": "assistant", "content": reply_text(way, self.answer)}
        if way == "thinking":
            message["thinking"] = 'Hm, {"primary_emotion": "Fear"}?'
        if way == "tool call" or request.body.get("tools"):
            call = {"function": {"name": "emotion", "arguments": dict(self.answer)}}
            if way != "cut off":
                message |= {"content": "", "tool_calls": [call]}
        made: dict[str, Any] = {
            "model": "m",
            "created_at": "2026-01-01T00:00:00Z",
            "message": message,
        }
        made |= {"done": True, "done_reason": "length" if way == "cut off" else "stop"}
        counted = {"prompt_eval_count": 500, "eval_count": 9}
        return Reply(200, made | ({} if way in ("no usage", "null usage") else counted))


class OldOllama(Ollama):
    """Before 0.5: a shape is the word json, and this model calls no tools."""

    name = "Ollama before 0.5"

    def refuses(self, request: Request) -> Reply | None:
        if isinstance(request.body.get("format"), dict):
            return self.error(
                400,
                "json: cannot unmarshal object into Go struct field ChatRequest.format of type "
                "string",
            )
        if request.body.get("tools"):
            return self.error(400, "registry.ollama.ai/library/m does not support tools")
        return super().refuses(request)


class OllamaV1(Dialect):
    """Ollama's copy of OpenAI's protocol."""

    name = "Ollama (/v1)"

    def overloaded(self, status: int) -> Reply:
        said = "server busy, please try again.  maximum pending requests exceeded"
        return self.error(status, said)
