"""llama.cpp's server: a schema becomes a grammar, whose repetitions are limited.

https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
https://github.com/ggml-org/llama.cpp/issues/25746 and .../27859 (2,000 repetitions), .../26596 (the
form of the refusal)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.pure.worker.dialects.dialect import Dialect, Reply, Request

_MOST = 2000


class LlamaCppServer(Dialect):
    """A recent build."""

    name = "llama.cpp server"

    def refuses(self, request: Request) -> Reply | None:
        shape = request.body.get("response_format") or {}
        schemas = [shape.get("json_schema", {}).get("schema")]
        schemas += [tool["function"]["parameters"] for tool in request.body.get("tools") or ()]
        if any(schema and _repetitions(schema) >= _MOST for schema in schemas):
            return self.error(400, "Failed to initialize samplers: failed to parse grammar")
        return None

    def error(self, status: int, message: str, code: Any = None, param: Any = None) -> Reply:
        kind = "invalid_request_error" if status == 400 else "unavailable_error"
        return Reply(status, {"error": {"code": status, "message": message, "type": kind}})

    def overloaded(self, status: int) -> Reply:
        return self.error(status, "Loading model")

    def too_long(self) -> Reply:
        error = {
            "code": 400,
            "message": "the request exceeds the available context size, try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 9000,
            "n_ctx": 4096,
        }
        return Reply(400, {"error": error})


def _repetitions(schema: Mapping[str, Any], outer: int = 1) -> int:
    own: int = outer * max(schema.get("maxLength", 1), schema.get("maxItems", 1))
    parts = [*schema.get("properties", {}).values()]
    if "items" in schema:
        parts.append(schema["items"])
    return max([own, *(_repetitions(part, own) for part in parts)])
