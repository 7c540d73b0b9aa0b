"""LiteLLM's proxy: it checks the parameters of the model behind it.

https://docs.litellm.ai/docs/completion/drop_params
The form of its errors: https://github.com/BerriAI/litellm/issues/13825
"""

from __future__ import annotations

from typing import Any

from tests.pure.worker.dialects.dialect import Dialect, Reply, Request


class LiteLLM(Dialect):
    """A proxy before a model that takes no seed."""

    name = "LiteLLM"
    base = ""
    path = "/chat/completions"

    def refuses(self, request: Request) -> Reply | None:
        for name in ("seed", "random_seed", "frequency_penalty"):
            if name in request.body:
                said = (
                    f"litellm.UnsupportedParamsError: gemini does not support parameters: "
                    f"['{name}'], for model=m. To drop these, set `litellm.drop_params=True`"
                )
                return self.error(400, said)
        return None

    def error(self, status: int, message: str, code: Any = None, param: Any = None) -> Reply:
        error = {"message": message, "type": "None", "param": param, "code": code or str(status)}
        return Reply(status, {"error": error})

    def too_long(self) -> Reply:
        said = "litellm.ContextWindowExceededError: the input is longer than the context window"
        return self.error(400, said, "context_length_exceeded")

    def filtered(self) -> Reply:
        said = "litellm.ContentPolicyViolationError: it breaks the content policy"
        return self.error(400, said, "content_policy_violation")
