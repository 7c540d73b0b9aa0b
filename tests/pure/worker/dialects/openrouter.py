"""OpenRouter: providers are chosen by the parameters of a request; errors may come with status 200.

https://openrouter.ai/docs/guides/routing/provider-selection
https://openrouter.ai/docs/api-reference/errors-and-debugging
No endpoint is a 404: https://github.com/Routstr/routstr-core/issues/554 and
https://github.com/openstory-so/openstory/issues/1302
"""

from __future__ import annotations

from typing import Any

from tests.pure.worker.dialects.dialect import Dialect, Reply, Request


class OpenRouter(Dialect):
    """A model whose providers know no structured outputs."""

    name = "OpenRouter"
    base = "/api/v1"
    path = "/api/v1/chat/completions"

    def refuses(self, request: Request) -> Reply | None:
        shape = request.body.get("response_format") or {}
        if shape.get("type") == "json_schema":
            return self.error(404, "No endpoints found that can handle the requested parameters.")
        return None

    def error(self, status: int, message: str, code: Any = None, param: Any = None) -> Reply:
        return Reply(status, {"error": {"message": message, "code": status}, "user_id": "u"})

    def filtered(self) -> Reply:
        said = "Input was flagged by the moderation"
        error = {"message": said, "code": 403, "metadata": {"reasons": ["violence"]}}
        return Reply(403, {"error": error})

    def completed(self, way: str, request: Request) -> Reply:
        if way == "error in a reply":
            error = {"message": "Provider returned error", "code": 503, "metadata": {"raw": "x"}}
            return Reply(200, {"error": error, "user_id": "u"})
        return super().completed(way, request)
