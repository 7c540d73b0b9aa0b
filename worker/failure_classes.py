"""What an HTTP error of a model server means for the message. Pure.

A status and the code in its body decide; the words of the body are looked at for servers that have
no code for a text that is too long, and are never passed on: they may quote the text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from worker.model import (
    ContentFilteredError,
    ModelAccessError,
    ModelError,
    ModelUnavailableError,
    OverloadedError,
    RefusedTextError,
    TextTooLongError,
    TransientError,
)

_TOO_LONG_CODES = {
    "context_length_exceeded",  # OpenAI, Azure, LiteLLM, OpenRouter
    "exceed_context_size_error",  # llama.cpp server
    "string_above_max_length",  # OpenAI
    "string_too_long",  # pydantic, as FastAPI servers answer 422
    "request_too_large",  # Anthropic
    "payload_too_large",
}
#: Of servers that have no code for it, each as its sources and bug reports show it.
_TOO_LONG_WORDS = re.compile(
    r"maximum context length|context length exceeded|exceeds? (?:the )?(?:available |model.?s )?"
    r"(?:maximum )?context (?:size|length|window)|context[ _](?:size|length|window) (?:is |was )?"
    r"exceeded|larger than the context|prompt is too long|prompt too long|input is too long"
    r"|input (?:length|prompt)[^.]{0,80}(?:exceeds|too long|longer than)"
    r"|`?inputs?`? tokens? \+ `?max_new_tokens|`?inputs`? must have less than"
    r"|too large for model with|maximum input length|max_model_len"
    r"|request too large for|request entity too large"
    r"|reduce the length of the (?:messages|prompt|input)"
    r"|exceeds the maximum number of tokens|input token count[^.]{0,40}exceeds"
)
#: Said of requests that are no matter of pace (429 says the like of tokens in a minute).
_TOO_LONG_WORDS_OF_400 = re.compile(
    r"(?:text|input|prompt|message|content|document|sequence|request)s? (?:is |are |was |were )?"
    r"too (?:long|large)"
    r"|exceeds? (?:the )?(?:maximum|max|allowed) (?:input |text |prompt |sequence )?"
    r"(?:length|size|tokens)|exceeds? (?:the )?(?:\w+ )?token limit"
)
_FILTER_CODES = {
    "content_filter",  # Azure OpenAI, Mistral
    "content_filtered",
    "responsibleaipolicyviolation",  # Azure's inner code
    "content_policy_violation",  # OpenAI, LiteLLM
    "contentpolicyviolationerror",
    "moderation_blocked",
    "moderation",
    "data_inspection_failed",  # Alibaba's Model Studio
    "invalid_prompt",  # OpenAI, of a prompt that breaks its policy
    "guardrail_intervened",
}
_FILTER_WORDS = re.compile(
    r"content management policy|content policy|content filter|usage polic|safety system"
    r"|requires moderation|flagged (?:as|for|by)|responsible ?ai"
)
_QUOTA_CODES = {
    "insufficient_quota",  # OpenAI: the prepaid credit is used up
    "billing_hard_limit_reached",
    "billing_not_active",
    "access_terminated",
    "account_deactivated",
    "billing_error",  # Anthropic
}
_ACCESS_CODES = {
    "invalid_api_key",
    "invalid_authentication",
    "authentication_error",
    "permission_error",
    "permission_denied",
    "permissiondenied",
    "insufficient_permissions",
    "model_not_found",
    "unsupported_country_region_territory",
    "deploymentnotfound",
    "accessdenied",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An HTTP error of a model server: its status, the pause it asks for, and what its body says.

    where and model name the server and the model in messages; body may be JSON or anything else.
    """

    status: int
    where: str
    model: str
    pause: float | None = None
    body: object = None


def explain_refusal(refusal: Refusal) -> ModelError:
    """What a status of 400 or more means. Never quotes the body."""
    codes, words = _codes_and_words(refusal.body)
    status, where = refusal.status, refusal.where
    if status == 402 or codes & _QUOTA_CODES:
        return ModelAccessError(f"{where} says that the account's quota is used up ({status})")
    if status == 401:
        return ModelAccessError(f"{where} refused the key (401)")
    if status <= 500 and (refused := _text_refused(status, where, codes, words)) is not None:
        return refused
    if status == 403:
        return _forbidden(where, codes)
    return _by_status(refusal)


def _text_refused(status: int, where: str, codes: set[str], words: str) -> RefusedTextError | None:
    too_long = _TOO_LONG_WORDS.search(words) or (
        status in (400, 422, 500) and _TOO_LONG_WORDS_OF_400.search(words)
    )
    if status == 413 or codes & _TOO_LONG_CODES or too_long:
        return TextTooLongError(f"{where} says that the text is too long ({status})")
    if codes & _FILTER_CODES or (status in (400, 403, 451) and _FILTER_WORDS.search(words)):
        return ContentFilteredError(f"{where} filtered the content ({status})")
    return None


def _forbidden(where: str, codes: set[str]) -> ModelError:
    if codes & _ACCESS_CODES:
        return ModelAccessError(f"{where} refused the key (403)")
    # A gateway's moderation or a firewall may mean this text alone, which must count as tried:
    # held, it would come back for ever. A refused key opens the breaker all the same.
    return TransientError(f"{where} refused this text, or the key (403)")


def _by_status(refusal: Refusal) -> ModelError:
    status, where, pause = refusal.status, refusal.where, refusal.pause
    said = f"{where} answered {status}"
    if status < 400:
        return ModelUnavailableError(f"{said}, a redirect; set its URL to where the model is")
    if status == 404:
        return ModelUnavailableError(
            f"model '{refusal.model}' is not on {where}; pull it there first"
        )
    if status in (429, 503, 529) or (status >= 500 and pause is not None):
        return OverloadedError(said, retry_after=pause)
    if status in (502, 504, 521, 522, 523, 530):
        return ModelUnavailableError(f"{said}: the gateway cannot reach the model")
    if status in (400, 406, 409, 411, 414, 415, 416, 417, 422, 431, 451):
        return RefusedTextError(f"{where} refused the request ({status})")
    return TransientError(said)


def _codes_and_words(body: object) -> tuple[set[str], str]:
    """The codes and types in an error's body, and its words, all in small letters."""
    if isinstance(body, bytes):
        body = body.decode(errors="replace")
    if isinstance(body, str):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return set(), str(body)[:4000].lower()
    codes: set[str] = set()
    words: list[str] = []
    _collect(body, codes, words, 6)
    return codes, " ".join(words)[:4000].lower()


def _collect(part: Any, codes: set[str], words: list[str], depth: int) -> None:
    if isinstance(part, str):
        words.append(part)
    if depth == 0 or not isinstance(part, dict | list):
        return
    if isinstance(part, list):
        for one in part[:20]:
            _collect(one, codes, words, depth - 1)
        return
    for name, value in list(part.items())[:40]:
        if name in ("code", "type", "reason", "error_type", "status") and isinstance(value, str):
            codes.add(value.lower())
        elif name in ("message", "error", "detail", "msg", "raw") and isinstance(value, str):
            words.append(value)
        elif isinstance(value, dict | list):
            _collect(value, codes, words, depth - 1)
