"""How each message ends. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from selfheal_worker.metrics import DEAD_LETTER_REASONS
from tests.simulation.models.truth import COUNTED, Did, Exchange
from tests.simulation.models.words import NO_TOKENS, Nature, tokens_of
from tests.simulation.worker.checks import invariant
from tests.simulation.worker.history import ANSWERED, DEAD, End, History
from tests.simulation.worker.messages import Message
from tests.simulation.worker.world import BUILT_IN, QUEUE, Model, World

_ABSENT = object()


@invariant(
    "README: A message is acknowledged only after the broker has confirmed its result; a message "
    "that cannot be processed ends up in a dead-letter queue with the reason."
)
def nothing_is_lost(history: History) -> Iterator[str]:
    """Each message has an end, and none of another is there."""
    for one in history.messages():
        if not history.of(one.number) and history.settled is not None:
            yield f"message {one.number} ({one.kind}) is lost"
    for number in history.acked_early:
        yield f"message {number} was acked when the broker had nothing else of it"
    for end in history.ends:
        if end.number not in history.published:
            yield f"an end belongs to no message: {end}"


@invariant("docs/simulation.md: once faults stop the world settles in bounded time")
def it_settles(history: History) -> Iterator[str]:
    """All is answered or dead-lettered, and nothing waits."""
    if history.settled is None:
        left = {name: count for name, count in history.remaining.items() if count}
        yield f"not settled at {history.over:.0f} s, faults ended at {history.world.calm}: {left}"


@invariant(
    "README: A message is answered at least once. After a crash or a lost connection it may be "
    "answered twice, with the same id."
)
def duplicates_have_a_cause(history: History) -> Iterator[str]:
    """No more ends than the broker took the message back, and one."""
    for one in history.messages():
        ends = history.of(one.number)
        if len(ends) > 1 + history.returned[one.number]:
            yield f"message {one.number} ended {len(ends)} times: {[end.story() for end in ends]}"
        answers = [end for end in ends if end.kind == ANSWERED]
        ids = {repr(end.result().get("id")) for end in answers}
        if len(ids) > 1 and (one.id is not None or one.message_id is not None):
            yield f"message {one.number} was answered with different ids: {sorted(ids)}"


@invariant(
    "README: A message that cannot be processed is dead-lettered in one delivery, with "
    "reason, error class, attempts and times."
)
def dead_letters_are_complete(history: History) -> Iterator[str]:
    """Their headers are there, and the body is as it came."""
    bodies = {one.number: one for one in history.messages()}
    for end in history.ends:
        one = bodies.get(-1 if end.number is None else end.number)
        if end.kind != DEAD or one is None:
            continue
        if end.reason not in DEAD_LETTER_REASONS:
            yield f"message {one.number} was dead-lettered with the reason {end.reason!r}"
            continue
        if end.body != one.body:
            yield f"the dead letter of message {one.number} has another body"
        yield from (f"message {one.number}: {what}" for what in _bad_headers(end, one, history))


def _changed_headers(got: Mapping[str, Any], one: Message) -> Iterator[str]:
    theirs = ("x-selfheal-", "x-death", "x-delivery-", "x-acquired-")
    for name, value in one.headers.items():
        if not name.startswith(theirs) and got.get(name, _ABSENT) != value:
            yield f"its header {name} was {value!r} and is {got.get(name)!r}"


def _bad_headers(end: End, one: Message, history: History) -> Iterator[str]:
    got = end.headers
    attempts = got.get("x-selfheal-attempts")
    most = max(history.world.max_attempts, one.attempts + 1)
    if not isinstance(attempts, int) or not 0 <= attempts <= most:
        yield f"its dead letter has {attempts!r} attempts"
    elif not one.valid and attempts != one.attempts + 1:
        yield f"it is poison, and its dead letter has {attempts} attempts"
    for name in ("x-selfheal-first-time", "x-selfheal-last-time"):
        try:
            datetime.fromisoformat(str(got.get(name)))
        except ValueError:
            yield f"its dead letter has {name}={got.get(name)!r}"
    if not isinstance(got.get("x-selfheal-error-class"), str):
        yield "its dead letter has no error class"
    if got.get("x-selfheal-original-routing-key") != QUEUE:
        yield f"its dead letter has another queue: {got.get('x-selfheal-original-routing-key')!r}"
    yield from _changed_headers(got, one)
    if one.text and one.text in str(dict(got)):
        yield "its dead letter's headers quote the text"


@invariant(
    "providers.md: In a chain, a text is dead-lettered only after every model that could still "
    "answer has failed on it. (And: any other message after worker.maxAttempts counted attempts.)"
)
def each_end_is_right(history: History) -> Iterator[str]:
    """A good message is answered, a poison one dead-lettered for the right reason."""
    for one in history.messages():
        for end in history.of(one.number):
            name = ANSWERED if end.kind == ANSWERED else end.reason
            right = right_ends(one, history)
            if name not in right:
                seen = [call.story() for call in history.calls_about(one.number)]
                yield (
                    f"message {one.number} ({one.kind}) ended as {name}, right is "
                    f"{sorted(right)}; {seen}"
                )


def right_ends(one: Message, history: History) -> set[str]:
    """The ends that a message may have had, as the servers know what they did."""
    if not one.valid:
        return set(one.right)
    world = history.world
    right: set[str] = set()
    if any(_can_answer(one, model, world) or _is_trusted(model) for model in world.chain):
        right.add(ANSWERED)
    active = world.chain[0]
    if not _can_answer(one, active, world):
        refusing = (reason for model in world.chain for reason in _reasons(one, model, world))
        everyone = all(not _can_answer(one, model, world) for model in world.chain)
        if everyone or (len(world.chain) > 1 and world.chain[-1].name != BUILT_IN):
            right.update(refusing)
    if counted_attempts(one, history) >= world.max_attempts:
        right.add("retries_exhausted")
    return right


def _can_answer(one: Message, model: Model, world: World) -> bool:
    if model.server is None:
        return True
    nature = one.natures.get(model.server.name, Nature.GOOD)
    if nature not in (Nature.GOOD, Nature.FLAKY):
        return False
    return world.shorten or not _too_long(one, model)


def _is_trusted(model: Model) -> bool:
    """Whether a server may cut a text and nobody can see it: it does not report its tokens."""
    return model.server is not None and model.server.truncates and model.server.way in NO_TOKENS


def _too_long(one: Message, model: Model) -> bool:
    if model.server is None:
        return False
    # A worker asks Ollama for a context of at most 8,192 tokens (model.contextTokens is not set).
    context = min(model.server.context, 8192 if model.provider == "ollama" else math.inf)
    return tokens_of(one.text) > context - 600


def _reasons(one: Message, model: Model, world: World) -> set[str]:
    if model.server is None:
        return set()
    nature = one.natures.get(model.server.name, Nature.GOOD)
    found = {
        Nature.FILTERED: {"content_filtered"},
        Nature.FILTERED_ANSWER: {"content_filtered"},
        Nature.DECLINED: {"refused_by_model"},
    }.get(nature, set())
    return found | ({"text_too_long"} if _too_long(one, model) and not world.shorten else set())


def counted_attempts(one: Message, history: History) -> int:
    """How many attempts may count against a message: those it came with, and one for each call
    that failed otherwise than by the server's state."""
    # An answer that comes at the end of a call's time may have come too late.
    share = 0.9 * history.world.deadline / len(history.world.chain)
    failed = [
        call
        for call in history.calls_about(one.number)
        if call.did in COUNTED
        or (call.left and call.did not in (Did.ANSWERED, Did.LISTED))
        or (call.did is Did.ANSWERED and (call.ended or math.inf) - call.opened >= share)
        or _had_no_cpu(call, history)
    ]
    return one.attempts + len(failed)


def _had_no_cpu(call: Exchange, history: History) -> bool:
    """Whether the worker may have read an answer too late, for want of CPU."""
    lives = (life for life in history.lives if life.name == call.client)
    ended = call.ended if call.ended is not None else history.over
    return any(life.stopped_within(call.opened, ended + 1.0) for life in lives)


@invariant(
    "README: An unavailable model does not use up attempts. providers.md: OverloadedError counts "
    "no attempt."
)
def attempts_are_not_burnt(history: History) -> Iterator[str]:
    """A dead letter or a result has no more attempts than calls failed."""
    for one in history.messages():
        # What does not fit into a context that the worker knows is refused, and counted, uncalled.
        if not one.valid or any(_too_long(one, model) for model in history.world.chain):
            continue
        most = counted_attempts(one, history)
        for end in history.of(one.number):
            made = _attempts(end)
            # The last attempt of an answered message did not fail.
            allowed = most + (1 if end.kind == ANSWERED else 0)
            refused_unasked = end.kind == DEAD and end.reason == "text_too_long"
            if made > allowed + (1 if refused_unasked else 0):
                yield f"message {one.number} has {made} attempts, at most {allowed} were made"


def _attempts(end: End) -> int:
    found = end.result()["attempts"] if end.kind == ANSWERED else end.headers["x-selfheal-attempts"]
    assert isinstance(found, int)
    return found
