"""What results contain. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from tests.simulation.models.truth import Did
from tests.simulation.models.words import NO_TOKENS
from tests.simulation.worker.checks import invariant
from tests.simulation.worker.faults import Kind
from tests.simulation.worker.history import ANSWERED, End, History
from tests.simulation.worker.messages import Message
from tests.simulation.worker.world import BUILT_IN, World

#: Timestamps from here on are in milliseconds.
_MILLISECONDS = 1e11


@invariant(
    "design, guarantee 8: Output is parsed, normalised and validated; injected instructions cannot "
    "change shape or labels. README: the result is marked truncated: true if it was shortened."
)
def results_have_the_right_shape(history: History) -> Iterator[str]:
    """Ids, metadata, labels, phrases and marks of each result."""
    known = {one.number: one for one in history.messages()}
    for end in history.ends:
        one = known.get(-1 if end.number is None else end.number)
        if end.kind == ANSWERED and one is not None:
            yield from (f"message {one.number}: {what}" for what in _bad_result(end, one, history))


def _bad_result(end: End, one: Message, history: History) -> Iterator[str]:
    got = end.result()
    yield from _bad_identity(end, one, got)
    if got.get("sentiment") not in ("Positive", "Negative", "Neutral"):
        yield f"its sentiment is {got.get('sentiment')!r}"
    if not 0 <= got.get("confidence_score", -1) <= 1:
        yield f"its confidence is {got.get('confidence_score')!r}"
    if any(phrase not in one.text for phrase in got.get("key_phrases", ["missing"])):
        yield f"a phrase is not in its text: {got['key_phrases']}"
    if "system" in got or not isinstance(got.get("model"), dict):
        yield f"its result has other fields: {sorted(got)}"
    else:
        yield from _bad_marks(end, one, got, history)
    for name, seconds in got.get("timings", {}).items():
        if name != "received" and not 0 <= seconds <= 86_400 * 2:
            yield f"its timing {name} is {seconds}"
    yield from _bad_wait(one, got.get("timings", {}))


def _bad_wait(one: Message, timings: Mapping[str, float]) -> Iterator[str]:
    """A message waited from its timestamp, in seconds or milliseconds, until it was received."""
    if not one.timestamp:
        return
    published = one.timestamp if one.timestamp < _MILLISECONDS else one.timestamp / 1000
    waited = max(0.0, timings["received"] - published)
    if abs(timings.get("queue_wait", -1.0) - waited) > 0.01:
        yield f"it waited {waited:.2f} s, its timings are {timings}"


def _bad_identity(end: End, one: Message, got: Mapping[str, Any]) -> Iterator[str]:
    expected = one.id if one.id is not None else one.message_id
    if expected is not None and got.get("id") != expected:
        yield f"its result has the id {got.get('id')!r}"
    if expected is None and got.get("id_generated") is not True:
        yield "its id is not marked as generated"
    if got.get("metadata") != json.loads(one.body).get("metadata"):
        yield f"its metadata came back as {got.get('metadata')!r}"
    if end.content_type != "application/json":
        yield f"its result has the content type {end.content_type!r}"


def _bad_marks(end: End, one: Message, got: Mapping[str, Any], history: History) -> Iterator[str]:
    world = history.world
    degraded = got["model"]["provider"] != world.chain[0].provider
    if distinguishable(world) and bool(got.get("degraded")) != degraded:
        yield f"degraded is {got.get('degraded')}, the model is {got['model']}"
    if got["model"]["provider"] not in {model.provider for model in world.chain}:
        yield f"it is answered by {got['model']}, which the chain does not have"
    if got.get("truncated") and not world.shorten:
        yield "its text was truncated"
    if not got.get("truncated") and _was_cut(one, end, history):
        yield "a part of its text was analysed, and the result does not say so"


def distinguishable(world: World) -> bool:
    """Whether the models of a chain have different providers."""
    providers = [one.provider for one in world.chain]
    return len(set(providers)) == len(providers)


def _was_cut(one: Message, end: End, history: History) -> bool:
    """Whether each server that answered about it had cut it, and said so by its count of tokens.

    A server that does not report its tokens is trusted; the built-in model reads all.
    """
    if end.result()["model"]["provider"] == BUILT_IN:
        return False
    silent = {server.name for server in history.world.servers if server.way in NO_TOKENS}
    did = {
        call.did
        for call in history.calls_about(one.number)
        if call.did in (Did.ANSWERED, Did.CUT)
        and (call.ended or math.inf) <= end.at
        and call.server not in silent
    }
    return did == {Did.CUT}


@invariant(
    "providers.md: Without `version` the results name the new version within two seconds (Ollama; "
    "other servers name it in each answer)."
)
def results_name_the_version_that_answered(history: History) -> Iterator[str]:
    """The version in a result is that of the model which answered about its text."""
    swapped = [one.at for one in history.faults() if one.kind is Kind.SWAP]
    for end in history.ends:
        if end.kind != ANSWERED or end.number is None:
            continue
        model = end.result()["model"]
        answered = [
            one
            for one in history.calls_about(end.number)
            if one.did in (Did.ANSWERED, Did.CUT) and one.version
        ]
        if model["provider"] == BUILT_IN or not answered:
            continue
        # Ollama's digest is looked up beside the calls.
        late = any(one.opened - 13.0 < at < end.at for one in answered for at in swapped)
        if model["provider"] == "ollama" and late:
            continue
        versions = {one.version for one in answered}
        if model["version"] not in versions:
            yield f"message {end.number} names {model['version']}, answered was by {versions}"
