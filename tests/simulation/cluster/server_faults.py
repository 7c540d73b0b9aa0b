"""Faults of the API server for a seed to choose from, each with a line for the story."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.simulation.cluster.faulty_server import (
    FaultyServer,
    Matches,
    everything,
    evictions,
    lists,
    of,
    reads,
    writes,
)

#: What a fault may be about, and how a story names it.
SCOPES: tuple[tuple[str, Matches], ...] = (
    ("all requests", everything),
    ("reads", reads),
    ("writes", writes),
    ("evictions", evictions),
    ("requests about nodes", of("nodes")),
    ("requests about leases", of("leases")),
    ("requests about pods", of("pods")),
)


@dataclass(frozen=True, slots=True)
class ServerFault:
    """One fault, drawn. seconds: how long it lasts; begin: starts it."""

    text: str
    seconds: float
    begin: Callable[[FaultyServer], object]


def draw(random: Random, longest: float = 120.0) -> ServerFault:
    """Any of them."""
    seconds = min(longest, random.choice((1.0, 5.0, 20.0, 60.0, 120.0, 600.0)))
    kind = random.choice(_KINDS)
    text, begin = kind(random, seconds)
    lasts = f" for {seconds:g} s" if kind in _LASTING else ""
    return ServerFault(text + lasts, seconds, begin)


Drawn = tuple[str, Callable[[FaultyServer], object]]


def _throttle(random: Random, seconds: float) -> Drawn:
    what, matches = random.choice(SCOPES)
    wait, dated = random.choice((1, 1, 2, 10)), random.random() < 0.1
    return (
        f"429 with Retry-After {wait} for {what}",
        lambda f: f.throttle(seconds, matches, retry_after=wait, as_date=dated),
    )


def _fail(random: Random, seconds: float) -> Drawn:
    what, matches = random.choice(SCOPES)
    code, late = random.choice((500, 500, 502, 503, 504)), random.random() < 0.3
    after = " after they took effect" if late else ""
    return (
        f"{code} for {what}{after}",
        lambda f: f.fail(seconds, code, matches, after_it_took_effect=late),
    )


def _token(_: Random, seconds: float) -> Drawn:
    return "401 for all requests", lambda f: f.refuse_token(seconds)


def _expired(_: Random, seconds: float) -> Drawn:
    return "410 for lists", lambda f: f.expire_lists(seconds, lists)


def _interfere(random: Random, seconds: float) -> Drawn:
    times = random.choice((1, 3, 10))
    return (
        f"somebody else changes the object before each of {times} writes",
        lambda f: f.interfere(seconds, times=times),
    )


def _webhook(random: Random, seconds: float) -> Drawn:
    code = random.choice((403, 403, 429, 500))
    choices: tuple[Drawn, ...] = (
        (f"a webhook denies evictions with {code}", lambda f: f.deny(seconds, code=code)),
        ("a policy denies evictions", lambda f: f.deny_by_policy(seconds)),
        ("the webhook of evictions cannot be reached", lambda f: f.webhook_unreachable(seconds)),
        (
            "a webhook turns evictions into dry runs",
            lambda f: f.evictions_delete_nothing(seconds),
        ),
    )
    return random.choice(choices)


def _behind(_: Random, seconds: float) -> Drawn:
    return "the watch cache is behind", lambda f: f.fall_behind(seconds)


def _skip(_: Random, seconds: float) -> Drawn:
    return "watches skip the states", lambda f: f.skip_states(seconds)


def _cut(_: Random, _seconds: float) -> Drawn:
    return "all watches are cut", lambda f: f.cut_watches()


def _compact(_: Random, _seconds: float) -> Drawn:
    return "etcd is compacted", lambda f: f.compact()


def _restore(_: Random, seconds: float) -> Drawn:
    def begin(faulty: FaultyServer) -> None:
        saved = faulty.store.backup()
        faulty.simulation.after(seconds, lambda: faulty.restore(saved))

    return f"etcd is backed up, and restored {seconds:g} s later", begin


_LASTING: tuple[Callable[[Random, float], Drawn], ...] = (
    *(_throttle, _throttle, _fail, _fail, _token, _expired, _interfere),
    *(_webhook, _webhook, _behind, _skip),
)
_KINDS = (*_LASTING, _cut, _compact, _restore)
