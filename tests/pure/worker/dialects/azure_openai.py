"""Azure OpenAI's classic API: the deployment in the path, the key in `api-key`.

https://learn.microsoft.com/azure/ai-foundry/openai/reference
An older version of the API knows no max_completion_tokens:
https://github.com/openai/openai-python/issues/1724
The form of its content filter: https://github.com/compl-ai/compl-ai/issues/20
"""

from __future__ import annotations

from typing import Any

from tests.pure.worker.dialects.dialect import KEY, Reply, Request
from tests.pure.worker.dialects.openai_chat import OpenAI, Reasoning


class Azure(OpenAI):
    """A deployment of a chat model."""

    name = "Azure OpenAI"
    base = "/openai/deployments/m?api-version=2024-08-01-preview"
    path = "/openai/deployments/m/chat/completions"

    def refuses(self, request: Request) -> Reply | None:
        if (refused := _at_the_gate(request)) is not None:
            return refused
        for name in ("max_completion_tokens", "random_seed"):
            if name in request.body:
                return self.error(400, f"Unrecognized request argument supplied: {name}")
        return self._schema(request.body)

    def filtered(self) -> Reply:
        return _filtered()


class AzureReasoning(Reasoning):
    """A deployment of a reasoning model."""

    name = "Azure OpenAI, reasoning models"
    base = "/openai/deployments/m/chat/completions?api-version=2024-12-01-preview"
    path = "/openai/deployments/m/chat/completions"

    def refuses(self, request: Request) -> Reply | None:
        if (refused := _at_the_gate(request)) is not None:
            return refused
        bearer = {"authorization": f"Bearer {KEY}"}
        return super().refuses(
            Request(request.path, request.query, {**request.headers, **bearer}, request.body)
        )

    def filtered(self) -> Reply:
        return _filtered()


def _at_the_gate(request: Request) -> Reply | None:
    if request.path != Azure.path:
        return Reply(404, {"error": {"code": "404", "message": "Resource not found"}})
    if "api-version" not in request.query:
        return Reply(404, {"error": {"code": "404", "message": "Resource not found"}})
    if request.headers.get("api-key") != KEY or "authorization" in request.headers:
        said = "Access denied due to invalid subscription key or wrong API endpoint."
        return Reply(401, {"error": {"code": "401", "message": said}})
    return None


def _filtered() -> Reply:
    results: dict[str, Any] = {"violence": {"filtered": True, "severity": "medium"}}
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": results}
    error = {
        "message": "The response was filtered due to the prompt triggering the content management "
        "policy. Please modify your prompt and retry.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": inner,
    }
    return Reply(400, {"error": error})
