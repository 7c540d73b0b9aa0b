"""A text that a model did not read in full is never answered as if it had been."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_worker.model import context
from selfheal_worker.model.analysis import PROBE_TEXT
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.context import (
    CutError,
    fewest_tokens,
    fitted,
    longest_text,
    shortened,
    tokens_wanted,
    was_cut,
)
from selfheal_worker.model.errors import (
    BadOutputError,
    ContentFilteredError,
    ModelUnavailableError,
    TextTooLongError,
)
from selfheal_worker.model.failure_classes import Refusal, explain_refusal
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer, Usage
from selfheal_worker.retries import DeadLetter, decide
from selfheal_worker.runtime import REAL
from selfheal_worker.task import task_file

ANSWER = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": [],
}
LONG = "The box was broken, and nobody answers. " * 1600  # 64,000 bytes


@dataclass
class Server:
    """Reads no more than its context, and says how much that was; a word is a token and a third."""

    context: int
    counts: bool = True
    asked: list[str] = field(default_factory=list)
    name: str = "test"
    model: str = "test"
    version: str = "1"

    def warm_up(self) -> None: ...

    def close(self) -> None: ...

    def analyse(self, text: str, deadline: float) -> Answer:
        self.asked.append(text)
        read = min(self.context, 300 + len(text.split()) * 4 // 3)
        return Answer(json.dumps(ANSWER), Usage(read, 30) if self.counts else None)


def models(*servers: Server, longest: int | None = None, shorten: bool = False) -> Chain:
    members = [Member(server, longest_text=longest) for server in servers]
    made = Chain(members, task_file.load(), shorten=shorten)
    for member in members:
        member.wake()
    return made


def soon() -> float:
    return time.monotonic() + 60


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (LONG, 2050),
        ("word " * 12_900, 2050),
        ("\n".join(["Zeile für Zeile alles kaputt"] * 2000), 4096),
        ("这家店的服务很差我再也不会来了" * 2000, 2048),
        ("".join(chr(97 + n * n % 23) for n in range(64_500)), 2048),
    ],
    ids=["sentences", "words", "lines", "chinese", "one word"],
)
def test_a_part_of_a_long_text_is_distinguished_from_the_whole(text: str, read: int) -> None:
    assert was_cut(text, read)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (LONG, 12_000),
        (LONG, None),  # the server does not say
        (LONG, 0),  # nor here: old servers count no prompt that is in their cache
        ("short text", 3),
        ("-" * 60_000, 900),
        (" " * 60_000 + "x", 600),
        ("ab cd " * 200, 20),
    ],
    ids=["read", "unknown", "cached", "short", "rule", "blanks", "few words"],
)
def test_a_text_that_may_have_been_read_is_not(text: str, read: int | None) -> None:
    assert not was_cut(text, read)


@pytest.mark.parametrize(("read", "cut"), [(2046, False), (2047, True), (2048, True)])
def test_a_prompt_that_fills_the_context_was_cut(read: int, cut: bool) -> None:
    assert was_cut("👍🏽 " * 300, read, 2048) is cut


@given(st.text())
def test_no_text_has_more_tokens_at_least_than_characters(text: str) -> None:
    assert 0 <= fewest_tokens(text) <= len(text)


@given(st.text(min_size=100), st.integers(min_value=10, max_value=400))
def test_what_is_shortened_fits_and_is_head_and_tail(text: str, most: int) -> None:
    text = text.encode(errors="replace").decode()
    short = shortened(text, most)
    assert len(short.encode()) <= max(most, 7)
    head, tail = short.split("\n[…]\n")[0], short.rsplit("\n[…]\n")[-1]
    assert text.startswith(head)
    assert text.endswith(tail)


def test_the_longest_text_is_what_the_context_leaves() -> None:
    tokens = tokens_wanted(prompt_bytes=1500, text_bytes=9000, output_tokens=512)
    fits = longest_text(tokens, prompt_bytes=1500, output_tokens=512)
    assert 9000 <= fits <= 9003
    assert fitted("x" * 9000, fits, shorten=False) == "x" * 9000


def test_what_the_server_did_not_read_in_full_is_refused_once() -> None:
    server = Server(context=2050)
    with pytest.raises(TextTooLongError) as caught:
        models(server).ask(LONG, soon())
    assert len(server.asked) == 1
    assert decide(
        caught.value, attempts=0, max_attempts=5, delays=[1], model_away=False
    ) == DeadLetter("text_too_long", "CutError", 1)


def test_what_does_not_fit_is_not_even_sent() -> None:
    server = Server(context=2050)
    with pytest.raises(TextTooLongError):
        models(server, longest=3000).ask(LONG, soon())
    assert server.asked == []


@pytest.mark.parametrize("longest", [None, 3000])
def test_or_its_head_and_tail_are_read_and_the_result_says_so(longest: int | None) -> None:
    server = Server(context=2050)
    reply = models(server, longest=longest, shorten=True).ask(LONG, soon())
    assert reply.truncated
    assert not was_cut(server.asked[-1], 2050)
    assert "[…]" in server.asked[-1]


def test_a_whole_text_is_not_marked() -> None:
    for server in (Server(context=100_000), Server(context=2050, counts=False)):
        reply = models(server, shorten=True).ask(LONG, soon())
        assert not reply.truncated
        assert server.asked == [LONG]


def test_a_model_with_more_room_answers_instead_and_no_breaker_opens() -> None:
    small, large = Server(context=2050), Server(context=100_000)
    chain = models(small, large)
    for _ in range(20):
        assert chain.ask(LONG, soon()).degraded
    assert not chain.ask("short", soon()).degraded


def test_a_fallback_that_is_away_does_not_hold_the_text() -> None:
    class Away(Server):
        def analyse(self, text: str, deadline: float) -> Answer:
            raise ModelUnavailableError("away")

    with pytest.raises(TextTooLongError):
        models(Server(context=2050), Away(context=1)).ask(LONG, soon())


def test_the_default_context_is_a_ceiling() -> None:
    assert context.DEFAULT_TOKENS == 8192


REFUSALS: dict[str, Exception] = {
    "as OpenAI says it": explain_refusal(
        Refusal(400, "s", "m", body={"error": {"code": "context_length_exceeded"}})
    ),
    "in words": explain_refusal(Refusal(400, "s", "m", body="maximum context length is 2048")),
    "by its status": explain_refusal(Refusal(413, "s", "m")),
    "by a validation": explain_refusal(
        Refusal(422, "s", "m", body={"detail": [{"type": "string_too_long"}]})
    ),
}


class Strict(Server):
    """Refuses what is longer than its context, as most servers do."""

    refusal: Exception = REFUSALS["as OpenAI says it"]

    def analyse(self, text: str, deadline: float) -> Answer:
        if len(text.encode()) > self.context:
            self.asked.append(text)
            raise self.refusal
        return super().analyse(text, deadline)


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=list(REFUSALS))
@pytest.mark.parametrize("longest", [None, 40_000])
@pytest.mark.parametrize("room", [32_000, 5000, 500])
def test_a_text_that_the_server_calls_too_long_is_shortened(
    refusal: Exception, longest: int | None, room: int
) -> None:
    server = Strict(context=room, counts=False)
    server.refusal = refusal
    reply = models(server, longest=longest, shorten=True).ask(LONG, soon())
    assert reply.truncated
    theirs = [text for text in server.asked if text != PROBE_TEXT]
    assert len(theirs) <= 6
    assert theirs[-1].startswith(LONG[:100])
    assert theirs[-1].endswith(LONG[-20:])


def test_a_text_is_shortened_a_few_times_and_then_refused_for_the_named_reason() -> None:
    server = Strict(context=len(PROBE_TEXT), counts=False)
    with pytest.raises(TextTooLongError):
        models(server, shorten=True).ask(LONG, soon())
    theirs = [text for text in server.asked if text != PROBE_TEXT]
    assert len(theirs) == 6
    assert all(len(text) >= 60 for text in theirs)


@pytest.mark.parametrize("text", ["no", "x" * 100])
def test_a_short_text_is_not_shortened_to_nothing(text: str) -> None:
    class Odd(Strict):
        def analyse(self, text: str, deadline: float) -> Answer:
            self.asked.append(text)
            if text != PROBE_TEXT:
                raise self.refusal
            return Answer(json.dumps(ANSWER))

    server = Odd(context=0)
    with pytest.raises(TextTooLongError):
        models(server, shorten=True).ask(text, soon())
    assert [sent for sent in server.asked if sent != PROBE_TEXT] == [text]


def test_a_server_that_never_reads_a_text_in_full_is_asked_a_few_times() -> None:
    class Lazy(Server):
        def analyse(self, text: str, deadline: float) -> Answer:
            self.asked.append(text)
            return Answer(json.dumps(ANSWER), Usage(9, 1))

        context_tokens = 10

    server = Lazy(context=1)
    with pytest.raises(CutError):
        models(server, shorten=True).ask(LONG, soon())
    assert len(server.asked) == 6


def test_no_text_is_shortened_past_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(REAL, "monotonic", lambda: now)

    class Slow(Strict):
        def analyse(self, text: str, deadline: float) -> Answer:
            nonlocal now
            if text == LONG:
                now = deadline + 0.01
            return super().analyse(text, deadline)

    server = Slow(context=40_000, counts=False)
    one = models(server, shorten=True)
    one.ask("short", soon())
    with pytest.raises(TextTooLongError):
        one.ask(LONG, now + 0.1)
    assert server.asked == ["short", LONG]


@pytest.mark.parametrize("refusal", [*REFUSALS.values(), ContentFilteredError("x")])
@pytest.mark.parametrize("shorten", [True, False])
def test_a_repair_that_is_refused_says_nothing_of_the_text(
    refusal: Exception, shorten: bool
) -> None:
    class Talks(Server):
        def analyse(self, text: str, deadline: float) -> Answer:
            return Answer("no JSON")

        def repair(self, text: str, said: str, problem: str, deadline: float) -> Answer:
            raise refusal

    with pytest.raises(BadOutputError, match="contains no JSON object"):
        models(Talks(context=1), shorten=shorten).ask("short", soon())


def test_a_repair_that_has_not_the_whole_text_is_no_answer() -> None:
    class Talks(Server):
        context_tokens = 2050

        def analyse(self, text: str, deadline: float) -> Answer:
            return Answer("no JSON", Usage(2040, 3))

        def repair(self, text: str, said: str, problem: str, deadline: float) -> Answer:
            return Answer(json.dumps(ANSWER), Usage(2050, 3))

    with pytest.raises(BadOutputError):
        models(Talks(context=1)).ask("short", soon())


HEAVY = {
    "Thai": "สินค้าพังและไม่มีใครตอบ ",
    "emoji": "😡🤬👎🏽👩‍👩‍👧 ",
    "Hindi": "डिब्बा टूटा हुआ था ",
    "Amharic": "ሳጥኑ ተሰብሮ ነበር ",
    "Khmer": "ប្រអប់ខូច ",
}
LIGHT = {
    "English": "The box broke ",
    "Russian": "Коробка ",
    "Greek": "Το κουτί ",
    "Latin": "Größe ",
}


@pytest.mark.parametrize("words", HEAVY.values(), ids=list(HEAVY))
@pytest.mark.parametrize("most", [300, 3000, 3001, 20_000])
def test_scripts_that_take_more_tokens_have_less_room(words: str, most: int) -> None:
    text = words * 1000
    size = len(text.encode())
    with pytest.raises(TextTooLongError):
        fitted(text, size * 5 // 4, shorten=False)
    assert fitted(text, 2 * size, shorten=False) == text
    part = fitted(text, most, shorten=True)
    assert most * 3 // 4 <= context.weight(part) <= most
    assert "[…]" in part


@pytest.mark.parametrize("words", LIGHT.values(), ids=list(LIGHT))
def test_other_scripts_have_the_room_of_their_bytes(words: str) -> None:
    text = words * 1000
    assert fitted(text, len(text.encode()), shorten=False) == text


@given(st.text(min_size=1), st.integers(64, 500))
def test_what_is_fitted_weighs_no_more_than_it_may(text: str, most: int) -> None:
    assert context.weight(fitted(text * 40, most, shorten=True)) <= most
