"""text-generation-inference: its response_format has the schema in `value`.

https://huggingface.co/docs/text-generation-inference/basic_tutorials/using_guidance
The refusal of another form: https://github.com/huggingface/text-generation-inference/issues/2899
and .../pull/3276; its errors: https://huggingface.github.io/text-generation-inference/
"""

from __future__ import annotations

from typing import Any

from tests.pure.worker.dialects.dialect import Dialect, Reply, Request


class TGI(Dialect):
    """Version 3."""

    name = "text-generation-inference"

    def refuses(self, request: Request) -> Reply | None:
        shape = request.body.get("response_format")
        if shape is not None and "value" not in shape:
            # Plain text, as its web framework says it.
            return Reply(
                422,
                "Failed to deserialize the JSON body into the target type: response_format: "
                "missing field `value` at line 1 column 168",
            )
        return None

    def error(self, status: int, message: str, code: Any = None, param: Any = None) -> Reply:
        return Reply(status, {"error": message, "error_type": code or "validation"})

    def overloaded(self, status: int) -> Reply:
        return self.error(status, "Model is overloaded", "overloaded")

    def too_long(self) -> Reply:
        said = (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: "
            "9000 `inputs` tokens and 512 `max_new_tokens`"
        )
        return self.error(422, said)

    def filtered(self) -> Reply:
        return self.error(400, "The text was flagged by the moderation")
