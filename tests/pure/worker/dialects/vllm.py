"""vLLM's server: unknown fields are let through, errors are flat, a strict version forbids them.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
The form of its errors: https://github.com/vllm-project/vllm/issues/4667; an older version forbade
what it did not know: https://github.com/1Panel-dev/MaxKB/issues/2912
"""

from __future__ import annotations

from typing import Any

from tests.pure.worker.dialects.dialect import Dialect, Reply, Request, has_both_limits, reply_text


class VLLM(Dialect):
    """A recent version with a parser of thoughts."""

    name = "vLLM"

    def refuses(self, request: Request) -> Reply | None:
        if has_both_limits(request.body):
            return self.error(400, "max_tokens and max_completion_tokens cannot both be set")
        return None

    def error(self, status: int, message: str, code: Any = None, param: Any = None) -> Reply:
        body = {"object": "error", "message": message, "type": "BadRequestError", "param": param}
        return Reply(status, body | {"code": status})

    def filtered(self) -> Reply:
        return self.error(400, "The prompt was flagged by the content filter")

    def completed(self, way: str, request: Request) -> Reply:
        reply = super().completed(way, request)
        if way == "thinking":
            message = reply.body["choices"][0]["message"]
            message |= {"reasoning_content": 'Hm, {"primary_emotion": "Fear"}?'}
            if message["content"]:
                message["content"] = reply_text("plain", self.answer)
        return reply


class OldVLLM(VLLM):
    """A version that forbids fields that it does not know."""

    name = "vLLM before 0.7"

    def refuses(self, request: Request) -> Reply | None:
        for name in ("max_completion_tokens", "random_seed"):
            if name in request.body:
                detail = [
                    {
                        "type": "extra_forbidden",
                        "loc": ("body", name),
                        "msg": "Extra inputs are not permitted",
                        "input": request.body[name],
                    }
                ]
                return self.error(400, str(detail))
        return super().refuses(request)
