"""How model servers are asked. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.simulation.models.truth import Did, Exchange
from tests.simulation.worker.checks import invariant
from tests.simulation.worker.faults import Kind
from tests.simulation.worker.history import History

_SLACK = 0.3


@invariant("design, guarantee 8: Every provider keeps the deadline.")
def deadlines_are_kept(history: History) -> Iterator[str]:
    """No call about a message lasts longer than the message may."""
    lives = {one.name: one for one in history.lives}
    for one in history.exchanges:
        if one.text is None:
            continue
        ended = one.ended if one.ended is not None else history.over
        life = lives[one.client]
        if ended - one.opened <= history.world.deadline + _SLACK:
            continue
        if life.killed is None and not life.stopped_within(one.opened, ended + 1.0):
            yield f"a call took {ended - one.opened:.1f} s: {one.story()}"


@invariant(
    "providers.md: Every request to the server counts in the limits: warm-ups, probes, repairs. "
    "(models.NAME.concurrency, per worker)"
)
def concurrency_is_kept(history: History) -> Iterator[str]:
    """No worker has more calls at a server than its model allows."""
    for model in history.world.chain:
        if model.server is None or model.concurrency is None:
            continue
        for client, calls in _by_client(history, model.server.name):
            peak = _peak(calls, history.over)
            if peak > model.concurrency:
                yield f"{client} had {peak} calls at {model.name}, allowed are {model.concurrency}"


@invariant("providers.md: requestsPerMinute: calls that may begin, spread evenly.")
def pace_is_kept(history: History) -> Iterator[str]:
    """No two calls of a worker come closer than the pace allows."""
    for model in history.world.chain:
        if model.server is None or model.per_minute is None:
            continue
        least = 60.0 / model.per_minute
        lives = {one.name: one for one in history.lives}
        for client, calls in _by_client(history, model.server.name):
            begun = [one.opened for one in calls if one.chat]
            for before, after in pairwise(begun):
                late = lives[client].stopped_within(before - least, after + _SLACK)
                if after - before < least - _SLACK and not late:
                    yield f"{client} asks {model.name} at {before:.2f} and at {after:.2f}"


@invariant("providers.md: A pause that the server requests is respected.")
def pauses_are_respected(history: History) -> Iterator[str]:
    """No call begins in a pause that was requested before."""
    for model in history.world.chain:
        if model.server is None:
            continue
        for client, calls in _by_client(history, model.server.name):
            yield from _calls_in_a_pause(client, calls, history)


def _calls_in_a_pause(client: str, calls: Sequence[Exchange], history: History) -> Iterator[str]:
    jumps = any(one.kind is Kind.CLOCK_JUMP for one in history.faults())
    until = since = -math.inf
    life = next(one for one in history.lives if one.name == client)
    for at, one, ended in _moments(calls):
        if ended:
            if one.pause is not None and not jumps:
                since, until = at, max(until, at + one.pause)
        elif since + 0.05 < at < until - 0.05 and one.chat and not life.stopped_within(since, at):
            yield f"{client} asks at {at:.2f} in a pause from {since:.2f} to {until:.2f}"
            until = -math.inf


def _moments(calls: Sequence[Exchange]) -> list[tuple[float, Exchange, bool]]:
    """Begins and ends of calls, in the order of time."""
    found = [(one.opened, one, False) for one in calls]
    found += [(one.ended, one, True) for one in calls if one.ended is not None]
    return sorted(found, key=lambda moment: (moment[0], moment[2], moment[1].number))


@invariant(
    "ARCHITECTURE: the answer is found in what the model said, validated against the task's "
    "schema, and repaired once. providers.md: shortened up to five times."
)
def calls_per_message_are_bounded(history: History) -> Iterator[str]:
    """For each delivery a server is asked about a text at most twice, more often if shortened; once
    more where it had no room for the second time."""
    most = 2 * 6 if history.world.shorten else 2
    for one in history.messages():
        for server in history.world.servers:
            about = history.calls_about(one.number, server.name)
            calls = [call for call in about if call.did not in (Did.OVERLOADED, Did.PARAMETER)]
            allowed = most * max(1, history.deliveries[one.number])
            allowed += sum(call.did is Did.OVERLOADED for call in about)
            if len(calls) > allowed:
                yield (
                    f"{server.name} was asked {len(calls)} times about message {one.number}, "
                    f"which was delivered {history.deliveries[one.number]} times"
                )


def _by_client(history: History, server: str) -> Iterator[tuple[str, list[Exchange]]]:
    found: dict[str, list[Exchange]] = defaultdict(list)
    for one in history.exchanges:
        if one.server == server:
            found[one.client].append(one)
    return iter(sorted(found.items()))


def _peak(calls: Sequence[Exchange], over: float) -> int:
    changes: list[tuple[float, int]] = []
    for one in calls:
        if one.chat:
            changes.append((one.opened, 1))
            # The client knows of an answer a little later than the server has sent it.
            changes.append(((one.ended if one.ended is not None else over), -1))
    running = peak = 0
    for _, change in sorted(changes):
        running += change
        peak = max(peak, running)
    return peak
