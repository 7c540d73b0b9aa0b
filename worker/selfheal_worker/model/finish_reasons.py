"""What a reply says of itself that is no answer: filtered, declined, cut off, failed. Pure.

Names of the reasons: OpenAI, Azure and OpenRouter (finish_reason), Anthropic and Bedrock
(stop_reason, stopReason), Gemini (FinishReason), Ollama (done_reason).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selfheal_worker.model.errors import (
    BadOutputError,
    ContentFilteredError,
    ModelError,
    RefusedTextError,
    TransientError,
)

_KEYS = ("finish_reason", "stop_reason", "stopReason", "done_reason")
_FILTERED = {
    "content_filter",
    "content_filtered",
    "guardrail_intervened",
    "safety",
    "prohibited_content",
    "blocklist",
    "spii",
    "sensitive",
}
_DECLINED = {"refusal"}
_CUT = {"length", "max_tokens", "model_length", "max_output_tokens"}
_FAILED = {"error", "network_error"}
CUT_OFF = (
    "the reply reached its token limit before any content; raise MODEL_MAX_OUTPUT_TOKENS, or "
    "turn the model's reasoning off"
)


def problem(reply: Any) -> ModelError | None:
    """Why a reply (LangChain's message) is no answer; None where it may be one."""
    reason = _reason(getattr(reply, "response_metadata", None))
    if reason in _FILTERED:
        return ContentFilteredError(f"the server filtered the answer ({reason})")
    more = getattr(reply, "additional_kwargs", None)
    if reason in _DECLINED or (isinstance(more, Mapping) and more.get("refusal")):
        return RefusedTextError("the model declined to answer")
    if reason in _FAILED:
        return TransientError("the server aborted its answer with an error")
    return None


def empty(reply: Any) -> BadOutputError:
    """What to say of a reply that has no content."""
    cut = _reason(getattr(reply, "response_metadata", None)) in _CUT
    return BadOutputError(CUT_OFF if cut else "the reply is empty")


def _reason(metadata: Any) -> str:
    if not isinstance(metadata, Mapping):
        return ""
    found = next((metadata[key] for key in _KEYS if isinstance(metadata.get(key), str)), "")
    return str(found).lower()
