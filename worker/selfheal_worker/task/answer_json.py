"""Finding the JSON object of an answer in what a model wrote. Pure.

Around the object there may be thoughts, talk, a code fence, a list, a wrapper, or a second JSON
encoding. What stands before the end of the thoughts is no answer. Of several objects the last one
counts that has all wanted fields, else the last one that has any.

Marks of thoughts: DeepSeek R1 and Qwen write <think> (often the end alone, the beginning is part of
the template), Magistral [THINK], Kimi ◁think▷, Command A <|START_THINKING|>, Seed-OSS <seed:think>,
and gpt-oss channels (https://github.com/openai/harmony, docs/format.md).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_NAMES = r"(?:seed:)?(?:think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad)"
_END = re.compile(
    rf"</\s*{_NAMES}\s*>|\[/THINK\]|◁/think▷|<\|(?:end_of_thought|end_thinking|/think)\|>"
    # The answer's channel of gpt-oss, or its call of a tool; the last form is what is left of the
    # marks where a server takes special tokens out.
    r"|<\|channel\|>\s*(?:final|commentary\s+to=)[^<>\n]{0,80}(?:<\|constrain\|>[^<>\n]{0,40})?"
    r"<\|message\|>|\bassistantfinal(?=\W)|<channel\|>",
    re.IGNORECASE,
)
_BEGIN = re.compile(
    rf"^[ \t]*(?:<{_NAMES}\s*>|\[THINK\]|◁think▷|<\|(?:begin_of_thought|start_thinking|think)\|>"
    r"|(?:<\|start\|>assistant)?<\|channel\|>\s*(?:analysis|commentary)\b(?!\s+to=)"
    r"|<\|channel>thought)",
    re.IGNORECASE | re.MULTILINE,
)
#: Where an object may begin, or a string that contains one.
_START = re.compile(r'\{\s*["}]|"(?:\s|\\[nrt])*(?:\[(?:\s|\\[nrt])*)?\{(?:\s|\\[nrt])*\\"')
#: What stands before a string in an object or a list; after a word a comma is one of a sentence.
_MEMBER = re.compile(r'(?:[\[{]|["\]}\d]\s*[:,])\s*\Z')
# Decoding begins at so many places, and reads the content so many times over, at the most: a reply
# may be hostile.
_MOST_STARTS = 256
_MOST_READINGS = 16
_LEAST_BUDGET = 4096
# What a decode costs that ends at the interpreter's limit of nesting.
_DEEP = 8192
_MOST_PARTS = 512
_MOST_ENCODINGS = 3
#: Members with a tool's arguments as a string, as in OpenAI's API.
_ARGUMENTS = ("arguments", "parameters", "args", "input")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Wanted:
    """The names of an answer's fields; required: those without which it is not complete."""

    names: frozenset[str]
    required: frozenset[str]

    def rank(self, found: Mapping[str, Any]) -> int:
        """2: a complete answer, 1: some of it, 0: none of it."""
        if self.required and self.required <= found.keys():
            return 2
        return 1 if self.names & found.keys() else 0


def find(content: str, wanted: Wanted) -> Mapping[str, Any] | None:
    """The answer's object; one without any wanted field where there is no other, None for none."""
    return _find(content, wanted, _MOST_ENCODINGS)


def unwrapped(found: Mapping[str, Any], wanted: Wanted) -> Mapping[str, Any]:
    """The answer in an object that a client has decoded: itself, or what it is wrapped around."""
    if wanted.rank(found):
        return found
    return _best(_parts(found, wanted, _MOST_ENCODINGS), wanted) or found


def _find(content: str, wanted: Wanted, encodings: int) -> Mapping[str, Any] | None:
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        pass
    else:
        return _best(_parts(whole, wanted, encodings), wanted)
    decoded = list(_decoded(content))
    begin = _answer_begins(content, [(start, end) for start, end, _ in decoded])
    values = [value for start, _, value in decoded if start >= begin]
    return _best((part for one in values for part in _parts(one, wanted, encodings)), wanted)


def _best(found: Iterator[Mapping[str, Any]], wanted: Wanted) -> Mapping[str, Any] | None:
    best: Mapping[str, Any] | None = None
    for one in found:
        if best is None or wanted.rank(one) >= wanted.rank(best):
            best = one
    return best


def _decoded(content: str) -> Iterator[tuple[int, int, Any]]:
    """Objects, and strings that contain one: where they begin and end, none inside another."""
    starts = [match.start() for match in _START.finditer(content)][-_MOST_STARTS:]
    budget = max(_LEAST_BUDGET, _MOST_READINGS * len(content))
    done = 0
    for start in starts:
        if start < done or (content[start] == '"' and _is_a_member(content, start)):
            continue
        if budget <= 0:
            return
        try:
            value, done = _DECODER.raw_decode(content, start)
        except RecursionError:
            budget -= _DEEP
        except ValueError as error:
            budget -= getattr(error, "pos", len(content)) - start + 1
        else:
            budget -= done - start
            yield start, done, value


def _is_a_member(content: str, start: int) -> bool:
    """Whether a string stands in an object or a list: a phrase of an answer that was cut off.

    The text's sender could write such a phrase.
    """
    return _MEMBER.search(content[max(0, start - 80) : start]) is not None


def _answer_begins(content: str, spans: Collection[tuple[int, int]]) -> int:
    """Behind the last thought. A mark inside of an object is a quotation and none."""
    begin = _last(_END, content, spans)
    opened = _last(_BEGIN, content, spans)
    return len(content) if opened > begin else begin


def _last(mark: re.Pattern[str], content: str, spans: Collection[tuple[int, int]]) -> int:
    """Where the last mark ends that is in no span; 0 without one. Spans are in order."""
    last = 0
    left = iter(spans)
    span = next(left, None)
    for match in mark.finditer(content):
        while span is not None and span[1] <= match.start():
            span = next(left, None)
        if span is None or match.start() < span[0]:
            last = match.end()
    return last


def _parts(value: Any, wanted: Wanted, encodings: int) -> Iterator[Mapping[str, Any]]:
    """The objects in a decoded value, in their order; of an object that has a field itself alone.

    After a field there may be a quote of the text, whose author must not choose the answer.
    """
    waiting = [value]
    for _ in range(_MOST_PARTS):
        if not waiting:
            return
        part = waiting.pop()
        if isinstance(part, str):
            if encodings and (inner := _find(part, wanted, encodings - 1)) is not None:
                yield inner
        elif isinstance(part, list):
            waiting += [one for one in reversed(part) if isinstance(one, dict | list)]
        elif isinstance(part, Mapping):
            yield part
            if not wanted.rank(part):
                waiting += reversed(_members(part))


def _members(part: Mapping[str, Any]) -> list[Any]:
    """What may be an answer in a wrapper: objects, and a string where it can be nothing else."""
    strings = [part[name] for name in _ARGUMENTS if isinstance(part.get(name), str)]
    if len(part) == 1:
        strings = [one for one in part.values() if isinstance(one, str)]
    return strings + [one for one in part.values() if isinstance(one, dict | list)]
