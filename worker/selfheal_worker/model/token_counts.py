"""Token counts that a server reports with an answer; invalid ones are left out. Pure.

They are for metrics, and never decide whether there is an answer. Some servers report -1, NaN or a
string if they do not know, and the client libraries then fail although there is an answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

#: More tokens, or nanoseconds by the day, than one call can take.
_MOST_TOKENS = 10**8
_MOST_NANOSECONDS = 10**15
# Python refuses to read longer ones.
_LONGEST_NUMBER = 20

# What Ollama says beside an answer (https://github.com/ollama/ollama/blob/main/docs/api.md).
_COUNTS = ("prompt_eval_count", "eval_count")
_DURATIONS = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
_WORDS = ("model", "created_at", "done_reason", "remote_model", "remote_host")
# What OpenAI's chat completions do: https://platform.openai.com/docs/api-reference/chat/object
_USAGE, _OF_TOKENS, _DETAILS = "usage", "_tokens", "_tokens_details"


def token_count(reported: object) -> int | None:
    """A number of tokens; None where what is reported cannot be one."""
    return _count(reported, _MOST_TOKENS)


def without_bad_counts(reply: bytes) -> bytes:
    """The JSON of a reply without the counts, durations and names that are none.

    Any other reply, also one that is no JSON, comes back as it is.
    """
    try:
        body = _DECODER.decode(reply.decode(json.detect_encoding(reply), "surrogatepass"))
    except (ValueError, RecursionError):
        return reply
    if not isinstance(body, dict):
        return reply
    bad = [name for name in body if not _is_sound(name, body[name])]
    for name in bad:
        del body[name]
    usage = body.get(_USAGE)
    if isinstance(usage, dict) and (sound := _sound_usage(usage)) != usage:
        body[_USAGE] = sound
    elif not bad:
        return reply
    return json.dumps(body).encode()


def _is_sound(name: str, reported: object) -> bool:
    if reported is None:
        return True
    if name in _COUNTS:
        return token_count(reported) is not None
    if name in _DURATIONS:
        return _count(reported, _MOST_NANOSECONDS) is not None
    if name in _WORDS:
        return isinstance(reported, str)
    return name != _USAGE or isinstance(reported, dict)


def _sound_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    sound = {}
    for name, reported in usage.items():
        if name.endswith(_DETAILS):
            if isinstance(reported, dict):
                sound[name] = _sound_usage(reported)
        elif not name.endswith(_OF_TOKENS) or token_count(reported) is not None:
            sound[name] = reported
    return sound


def _count(reported: object, most: int) -> int | None:
    if isinstance(reported, bool) or not isinstance(reported, int | float):
        return None
    # NaN is in no range.
    if not 0 <= reported <= most or not math.isfinite(reported) or reported != int(reported):
        return None
    return int(reported)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _LONGEST_NUMBER else float(digits)


#: Made once: `json.loads` makes one for each reply where a number is read in another way.
_DECODER = json.JSONDecoder(parse_int=_integer)
