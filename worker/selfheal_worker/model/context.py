"""Whether a model reads a text in full. Pure.

Some servers (Ollama) truncate what does not fit into the model's context without an error, and the
answer seems complete. Tokens cannot be counted without the model's own tokenizer, so two bounds are
used: before a call, how many tokens a text may need; after it, how many it must have at least.
"""

from __future__ import annotations

import math
import re

from selfheal_worker.model.errors import TextTooLongError

#: Maximum context that is requested from a model, unless MODEL_CONTEXT_TOKENS is set.
DEFAULT_TOKENS = 8192
# English takes 4 to 5 bytes for a token, most other languages 2 to 4.
_BYTES_FOR_TOKEN = 3
# A chat's template, markers, the beginning of the answer.
_TEMPLATE_TOKENS = 64
_LEAST_TEXT_BYTES = 256
# Tokenizers split at blanks, and have no tokens for longer pieces of a word than this.
_LONGEST_TOKEN_BYTES = 16
# Some have tokens for a few very common pairs of words.
_SLACK = 0.75
# A shorter text fits into any context; a server may have read a part of it from its cache and not
# count that.
_LEAST_COUNTED = 500
_REPEATED = re.compile(r"(.)\1{3,}", re.DOTALL)
_HEAVY = re.compile(
    "[\u0900-\u10ff\u1200-\u137f\u1780-\u18af\u1900-\u1cff\ua8e0-\uabff\U00010000-\U0010ffff]+"
)
# Bytes of a character, counted twice.
_HEAVIEST = 8
_GAP = "\n[…]\n"
# What is sent of a text that a server calls too long: a half, a quarter, then ever less, so that
# a few calls find what fits into any context.
_PARTS = (2, 2, 4, 4, 4)
_LEAST_SHORTENED_BYTES = 64


class CutError(TextTooLongError):
    """The server read fewer tokens than the text can have."""


def tokens_wanted(*, prompt_bytes: int, text_bytes: int, output_tokens: int) -> int:
    """The context that prompt, text and answer may need."""
    return (
        math.ceil((prompt_bytes + text_bytes) / _BYTES_FOR_TOKEN) + output_tokens + _TEMPLATE_TOKENS
    )


def longest_text(context_tokens: int, *, prompt_bytes: int, output_tokens: int) -> int:
    """Bytes of the longest text that surely fits beside prompt and answer."""
    left = context_tokens - tokens_wanted(
        prompt_bytes=prompt_bytes, text_bytes=0, output_tokens=output_tokens
    )
    return max(_LEAST_TEXT_BYTES, left * _BYTES_FOR_TOKEN)


def fewest_tokens(text: str) -> int:
    """A floor of the tokens of a text, in any language and for any tokenizer.

    Repeated characters (rules, blanks) have tokens of many and count as one; a word is at least
    one token.
    """
    words = _REPEATED.sub(r"\1", text).split()
    sizes = (len(word.encode(errors="replace")) for word in words)
    return sum(math.ceil(size / _LONGEST_TOKEN_BYTES) for size in sizes)


def was_cut(text: str, tokens_read: int | None, context_tokens: int | None = None) -> bool:
    """Whether a server that says it read so many tokens cannot have read all of the text.

    None, 0 or less: it does not say (old versions of Ollama, where the prompt was in their cache).
    A prompt that fills the context to its end was cut to fit: it leaves no room for an answer.
    """
    if not tokens_read or tokens_read < 0:
        return False
    if context_tokens is not None and tokens_read >= context_tokens - 1:
        return True
    if len(text) < _LEAST_COUNTED:
        return False  # as its tokens are no more than its characters
    fewest = fewest_tokens(text)
    return fewest >= _LEAST_COUNTED and tokens_read < fewest * _SLACK


def fitted(text: str, most_bytes: int | None, *, shorten: bool) -> str:
    """The text, or what of it fits. Raises `TextTooLongError` where it may not be shortened."""
    if most_bytes is None or len(text) * _HEAVIEST <= most_bytes:
        return text
    size = weight(text)
    if size <= most_bytes:
        return text
    if not shorten:
        raise TextTooLongError(
            f"the text takes up to {size} bytes of English, about {most_bytes} fit into the "
            "model's context; raise MODEL_CONTEXT_TOKENS, or set MODEL_TEXT_TOO_LONG=shorten"
        )
    part, room = shortened(text, most_bytes), most_bytes
    while (size := weight(part)) > most_bytes:
        # Its bytes fit and its tokens may not: at most a factor of two, which is soon found.
        room = min(room - 1, room * most_bytes // size)
        part = shortened(text, room)
    return part


def weight(text: str) -> int:
    """Bytes of a text, and once more those of characters of which tokenizers know few words.

    Scripts of South and Southeast Asia, Georgian, Ethiopic and emoji take a token for 1 to 2 bytes,
    the byte itself where a character is unknown (Petrov et al., "Language model tokenizers
    introduce unfairness between languages", 2023).
    """
    size = len(text.encode(errors="replace"))
    return size if text.isascii() else size + sum(len(one.encode()) for one in _HEAVY.findall(text))


def shortened(text: str, most_bytes: int) -> str:
    """Head and tail of a text, at most so many bytes together."""
    encoded = text.encode(errors="replace")
    room = max(0, most_bytes - len(_GAP.encode()))
    tail = room // 3
    head = room - tail
    return (
        encoded[:head].decode(errors="ignore")
        + _GAP
        + encoded[len(encoded) - tail :].decode(errors="ignore")
    )


def shorter(text: str, sent: str, times: int) -> str | None:
    """Less of a text than was sent the last time, which was the times-th (from 0) to be too long.

    None where it has been shortened often enough, or is so short that its length is not the cause.
    """
    if times >= len(_PARTS):
        return None
    size = len(sent.encode(errors="replace"))
    most = size // _PARTS[times]
    return shortened(text, most) if most >= _LEAST_SHORTENED_BYTES else None
