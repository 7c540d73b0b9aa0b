"""Worlds and invariants of the worker's simulation, without the worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest

from selfheal_worker import config, message
from selfheal_worker.config import Settings
from selfheal_worker.health import Status
from selfheal_worker.message import PoisonError
from selfheal_worker.model.registry import config as model_config
from selfheal_worker.task import task_file
from tests.simulation.models.conditions import Condition
from tests.simulation.models.truth import Did, Exchange
from tests.simulation.models.words import Nature
from tests.simulation.worker import invariants, world
from tests.simulation.worker.exam import Exam
from tests.simulation.worker.faults import MOMENTARY, Fault, Kind
from tests.simulation.worker.history import ANSWERED, DEAD, End, History, Life, Sample
from tests.simulation.worker.messages import Message
from tests.simulation.worker.world import World

SEEDS = range(60)
TASK = task_file.load()


def test_a_seed_gives_the_same_world() -> None:
    assert [world.make(seed) for seed in SEEDS] == [world.make(seed) for seed in SEEDS]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_world_can_be(seed: int) -> None:
    made = world.make(seed)
    settings = config.load(made.env)
    assert settings.concurrency == made.concurrency
    for one in made.chain:
        found = model_config(settings, TASK, one.name)
        assert (found.api_key is not None) == (one.server is not None)
    for fault in made.faults:
        assert fault.end <= made.calm
        assert (fault.seconds == 0) == (fault.kind in MOMENTARY) or fault.kind is Kind.PAUSE
    assert made.scaling[-1].workers > 0
    assert made.exam is not None
    assert made.exam.calm > max(fault.end for fault in made.exam.faults)
    assert len(made.story()) > len(made.messages)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_right_for_a_message_is_what_its_contract_says(seed: int) -> None:
    made = world.make(seed)
    settings = config.load(made.env)
    for one in made.messages:
        found = _read(one, settings)
        if isinstance(found, PoisonError):
            assert one.right == {found.reason}, one.kind
        else:
            assert one.right == {"answered"}, one.kind
            assert found.text == one.text
            assert one.id in (None, found.id)


def _read(one: Message, settings: Settings) -> message.Message | PoisonError:
    try:
        return message.parse(
            one.body,
            message_id=one.message_id,
            max_text_bytes=settings.max_text_bytes,
            max_body_bytes=settings.max_body_bytes,
        )
    except PoisonError as error:
        return error


# --- a run that went well, and what may be wrong with it


@cache
def _world() -> World:
    plain = next(
        made
        for made in map(world.make, range(1000))
        if made.chain[0].provider == "ollama" and len(made.chain) == 1
        if made.chain[0].per_minute is None and made.chain[0].concurrency is None
    )
    server = plain.servers[0]
    good = world.good(0, 1.0, plain.chain)
    poison = Message(1, 1.0, "no JSON", b"{", frozenset({"malformed_json"}))
    filtered = replace(world.good(2, 1.0, plain.chain), natures={server.name: Nature.FILTERED})
    made = replace(plain, messages=(good, poison, filtered), faults=(), shorten=False, exam=None)
    return replace(made, max_attempts=3, concurrency=2, deadline=10.0)


def _dead(number: int, reason: str, body: bytes, attempts: int = 1) -> End:
    headers = {
        "x-selfheal-reason": reason,
        "x-selfheal-attempts": attempts,
        "x-selfheal-error-class": "PoisonError",
        "x-selfheal-first-time": "2026-01-01T00:00:01+00:00",
        "x-selfheal-last-time": "2026-01-01T00:00:01+00:00",
        "x-selfheal-original-routing-key": "feedback",
    }
    return End(2.0, DEAD, f"n{number}", body, headers, "w")


def _answered(number: int, **more: object) -> End:
    result: dict[str, object] = {
        "id": f"id-{number}",
        "primary_emotion": "Joy",
        "sentiment": "Positive",
        "confidence_score": 0.5,
        "key_phrases": ["It works"],
        "model": {"provider": "ollama", "name": "m", "version": "0123"},
        "degraded": False,
        "attempts": 1,
    }
    body = json.dumps(result | more).encode()
    return End(2.0, ANSWERED, f"n{number}", body, {}, "w", f"id-{number}", "application/json")


def _status(**more: object) -> Status:
    plain = Status(0, 2, 0.0, 0.0, 0.1, 0, (), False, {})
    return replace(plain, **more)  # type: ignore[arg-type]


def _history() -> History:
    made = _world()
    server = made.servers[0].name
    filtered = made.messages[2]
    metrics = {
        'selfheal_worker_messages_total{outcome="answered"}': 1.0,
        'selfheal_worker_messages_total{outcome="dead_lettered"}': 2.0,
    }
    history = History(made, {0: 1.0, 1: 1.0, 2: 1.0}, settled=3.0, over=4.0)
    history.ends = [
        _answered(0),
        _dead(1, "malformed_json", b"{"),
        _dead(2, "content_filtered", filtered.body),
    ]
    history.exchanges = [
        Exchange(server, "w", 0, 1.0, text=0, did=Did.ANSWERED, began=1.0, ended=2.0),
        Exchange(server, "w", 1, 1.0, text=2, did=Did.FILTERED, began=1.0, ended=2.0),
    ]
    history.lives = [Life("w", 0.0, metrics=metrics)]
    history.samples = [Sample(3.0, "w", _status(), 0, 3, able=True)]
    for number in range(3):
        history.deliveries[number] = 1
    return history


def test_a_run_that_went_well_has_no_problem() -> None:
    assert invariants.problems(_history()) == []
    assert all(": " in sentence for sentence in invariants.sentences().values())


def _first(history: History, **more: object) -> None:
    history.ends[0] = _answered(0, **more)


def _first_dead(history: History, reason: str, attempts: int = 1) -> None:
    history.ends[0] = _dead(0, reason, history.world.messages[0].body, attempts)


def _call(history: History, **more: object) -> None:
    plain = history.exchanges[0]
    history.exchanges.append(replace(plain, number=9, **more))  # type: ignore[arg-type]


def _model(history: History, **more: object) -> None:
    chain = (replace(history.world.chain[0], **more),)  # type: ignore[arg-type]
    history.world = replace(history.world, chain=chain)


def _limited(history: History) -> None:
    _model(history, concurrency=1)
    _call(history, opened=1.5)


def _paced(history: History) -> None:
    _model(history, per_minute=60.0)
    _call(history, opened=1.2)


def _paused(history: History) -> None:
    _call(history, opened=1.0, ended=1.1, did=Did.OVERLOADED, pause=5.0)
    _call(history, opened=3.0, ended=4.0)


def _asked_again(history: History) -> None:
    _call(history, opened=2.0, ended=2.1)
    _call(history, opened=3.0, ended=3.1)


def _idle(history: History) -> None:
    history.samples += [
        Sample(at, "w", _status(), 3, 3, able=True) for at in (10.0, 100.0, 1000.0, 2000.0)
    ]


def _stopped(history: History) -> None:
    history.lives[0].terminated, history.lives[0].ended = 10.0, 100.0


def _examined(history: History, *faults: Fault) -> None:
    """An exam that went well: message 3 came alone, message 4 is the crowd."""
    fresh, crowd = (world.good(number, 1.0, history.world.chain) for number in (3, 4))
    exam = Exam(faults, (), 10.0, (fresh,), (crowd,))
    history.world = replace(history.world, exam=exam)
    history.published |= {3: 1.0, 4: 1.0}
    history.deliveries.update((3, 4))
    history.takers[4].add("w")
    history.examined = 0.0
    history.ends += [_answered(3), _answered(4)]
    counted = {'selfheal_worker_messages_total{outcome="answered"}': 3.0}
    history.lives[0].metrics = {**history.lives[0].metrics, **counted}


def test_an_exam_that_went_well_has_no_problem() -> None:
    history = _history()
    _examined(history)
    assert invariants.problems(history) == []


def _degraded_at_last(history: History) -> None:
    _examined(history)
    history.ends[-2] = _answered(3, degraded=True)


def _takes_no_part(history: History) -> None:
    _examined(history)
    history.lives.append(Life("another", 0.0))


def _probes_often(history: History) -> None:
    server = history.world.servers[0].name
    _examined(history, Fault(1.0, Kind.CONDITION, server, 300.0, Condition.ERRORS))
    history.exchanges += [
        Exchange(server, "w", number, 1.0 + number, did=Did.FAILED, ended=1.0 + number)
        for number in range(250)
    ]


WRONG: dict[str, tuple[str, Callable[[History], object]]] = {
    "lost": ("nothing_is_lost", lambda h: h.ends.pop(0)),
    "not settled": ("it_settles", lambda h: setattr(h, "settled", None)),
    "twice": ("duplicates_have_a_cause", lambda h: h.ends.append(h.ends[0])),
    "a wrong reason": ("each_end_is_right", lambda h: _first_dead(h, "content_filtered")),
    "exhausted": ("each_end_is_right", lambda h: _first_dead(h, "retries_exhausted", 3)),
    "burnt": ("attempts_are_not_burnt", lambda h: _first(h, attempts=3)),
    "by the broker": ("dead_letters_are_complete", lambda h: _first_dead(h, "by the broker")),
    "poison twice": (
        "dead_letters_are_complete",
        lambda h: h.ends.__setitem__(1, _dead(1, "malformed_json", b"{", 2)),
    ),
    "a changed body": (
        "dead_letters_are_complete",
        lambda h: h.ends.__setitem__(1, _dead(1, "malformed_json", b"{}")),
    ),
    "a foreign id": ("results_have_the_right_shape", lambda h: _first(h, id="other")),
    "an invented phrase": ("results_have_the_right_shape", lambda h: _first(h, key_phrases=["x"])),
    "an injected field": ("results_have_the_right_shape", lambda h: _first(h, system="x")),
    "another version": (
        "results_name_the_version_that_answered",
        lambda h: setattr(h.exchanges[0], "version", "4567"),
    ),
    "truncated": ("results_have_the_right_shape", lambda h: _first(h, truncated=True)),
    "a late call": ("deadlines_are_kept", lambda h: _call(h, ended=12.0)),
    "two calls": ("concurrency_is_kept", _limited),
    "too fast": ("pace_is_kept", _paced),
    "in a pause": ("pauses_are_respected", _paused),
    "many calls": (
        "calls_per_message_are_bounded",
        _asked_again,
    ),
    "slow to stop": ("shutdown_is_within_the_grace", _stopped),
    "unhealthy": (
        "healthz_is_about_the_process",
        lambda h: h.samples.append(Sample(3.0, "w", _status(hung=1), 0, 3, able=True)),
    ),
    "too many": (
        "in_flight_is_bounded",
        lambda h: h.samples.append(Sample(3.0, "w", _status(in_flight=3), 0, 3, able=True)),
    ),
    "idle": ("nobody_is_idle_for_ever", _idle),
    "not ready": (
        "breakers_close_again",
        lambda h: h.samples.append(Sample(3.0, "w", _status(not_ready=("x",)), 0, 3, able=True)),
    ),
    "degraded at last": ("fresh_messages_are_answered_soon", _degraded_at_last),
    "no part": ("every_worker_takes_part", _takes_no_part),
    "many probes": ("probes_become_rarer", _probes_often),
    "metrics": (
        "metrics_agree_with_the_broker",
        lambda h: h.lives[0].metrics.update(  # type: ignore[attr-defined]
            {'selfheal_worker_messages_total{outcome="answered"}': 2.0}
        ),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_invariant_finds_what_it_is_for(name: str) -> None:
    expected, spoil = WRONG[name]
    history = _history()
    spoil(history)
    assert expected in {one.invariant for one in invariants.problems(history)}


def test_each_invariant_is_tried() -> None:
    assert {expected for expected, _ in WRONG.values()} == set(invariants.sentences())
