"""Mistral's API: each field that it does not know is a 422, and the seed is random_seed.

https://docs.mistral.ai/api/
The forms of the 422: https://github.com/editor-code-assistant/eca/issues/231 and
https://github.com/Gitlawb/openclaude/issues/739
"""

from __future__ import annotations

from tests.pure.worker.dialects.dialect import Dialect, Reply, Request

_PARAMETERS = {
    *("model", "messages", "temperature", "top_p", "max_tokens", "stream", "stop", "random_seed"),
    *("response_format", "tools", "tool_choice", "presence_penalty", "frequency_penalty", "n"),
    *("prediction", "parallel_tool_calls", "prompt_mode", "safe_prompt"),
}


class Mistral(Dialect):
    """La Plateforme."""

    name = "Mistral"

    def refuses(self, request: Request) -> Reply | None:
        detail = [
            {
                "type": "extra_forbidden",
                "loc": ["body", name],
                "msg": "Extra inputs are not permitted",
                "input": request.body[name],
            }
            for name in sorted(set(request.body) - _PARAMETERS)
        ]
        if not detail:
            return None
        wrapped = {"object": "error", "message": {"detail": detail}, "param": None, "code": None}
        return Reply(422, wrapped | {"type": "invalid_request_error"})

    def overloaded(self, status: int) -> Reply:
        return Reply(status, {"message": "Requests rate limit exceeded"})

    def too_long(self) -> Reply:
        said = (
            "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 "
            "maximum context length"
        )
        body = {"object": "error", "message": said, "type": "invalid_request_prompt"}
        return Reply(400, body | {"param": None, "code": "3051"})
