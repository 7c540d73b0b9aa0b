"""Each request that a model's server gets counts in the model's limits, whatever it is for."""

from __future__ import annotations

import itertools
import math
import queue
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from types import SimpleNamespace
from typing import Any

import pytest

from selfheal_worker.model import turns
from selfheal_worker.model.call_threads import CallThreads
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import BadOutputError, ModelError, TransientError
from selfheal_worker.model.limits import LimitedError, Limits
from selfheal_worker.model.member import Member
from selfheal_worker.model.negotiated import Negotiated
from selfheal_worker.model.negotiation import Parameters
from selfheal_worker.model.provider import ModelConfig
from selfheal_worker.model.providers.chat import Chat, Http
from selfheal_worker.runtime import REAL
from selfheal_worker.task import task_file

TASK = task_file.load()
GOOD = (
    '{"primary_emotion": "Joy", "sentiment": "Positive", "confidence_score": 1, "key_phrases": []}'
)
PER_MINUTE = 6
APART = 60 / PER_MINUTE


class Clock:
    """Time passes only while somebody waits for a turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(REAL, "monotonic", self)
        monkeypatch.setattr(REAL, "time", self)
        clock = self

        class Waiting(threading.Condition):
            def wait(self, timeout: float | None = None) -> bool:
                clock.now += timeout or 0.0
                return True

        monkeypatch.setattr(REAL, "condition", Waiting)

    def __call__(self) -> float:
        return self.now

    def limits(self, **more: Any) -> Limits:
        return Limits(per_minute=PER_MINUTE, clock=self, **more)


class RefusedError(Exception):
    """As client libraries raise a 400."""

    status_code = 400

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.body = {"error": {"message": "Unsupported parameter", "param": name}}


class Server:
    """Refuses each of some parameters, and answers requests without them. at: when it was asked."""

    def __init__(self, clock: Callable[[], float], *refuses: str) -> None:
        self._clock = clock
        self._refuses = refuses
        self.at: list[float] = []
        self.says: list[str] = []

    def model(self, now: Parameters) -> Any:
        sent = {now.limit, now.seed, "temperature" if now.temperature else None}

        def invoke(_: Any) -> Any:
            self.at.append(self._clock())
            for name in self._refuses:
                if name in sent:
                    raise RefusedError(name)
            said = self.says.pop(0) if self.says else GOOD
            return SimpleNamespace(content=said, response_metadata={}, tool_calls=[])

        return SimpleNamespace(invoke=invoke)


CONFIG = ModelConfig("test", "m", task=TASK)


def provider(server: Server, http: Http | None = None, *, in_threads: bool = False) -> Chat:
    config = CONFIG
    http = http or Http(config)
    negotiated: Any = Negotiated(config, "http://server", http, server.model, Parameters())
    if in_threads:
        negotiated = CallThreads(negotiated.invoke, http.call, 2, "m")
    return Chat("test", "m", config, negotiated, "http://server", http)


def chain(built: Any, its_limits: Limits, *, warm: bool = True) -> Chain:
    made = Chain([Member(built, limits=its_limits)], TASK)
    made.members[0].warm = warm
    return made


def assert_apart(at: list[float], number: int) -> None:
    assert len(at) == number
    assert all(b - a >= APART - 1e-6 for a, b in itertools.pairwise(at))


REFUSES = [
    ("seed",),
    ("max_tokens", "temperature"),
    ("max_tokens", "max_completion_tokens", "seed", "random_seed", "temperature"),
]


@pytest.mark.parametrize("refuses", REFUSES)
@pytest.mark.parametrize("in_threads", [False, True])
def test_requests_about_refused_parameters_are_as_rare_as_others(
    monkeypatch: pytest.MonkeyPatch, refuses: tuple[str, ...], in_threads: bool
) -> None:
    clock = Clock(monkeypatch)
    server = Server(clock, *refuses)
    asked = chain(provider(server, in_threads=in_threads), clock.limits(concurrency=1))
    assert asked.ask("a text", clock() + 600).validated.values["primary_emotion"] == "Joy"
    # The text, our own text until that is taken, and the text once more.
    assert_apart(server.at, len(refuses) + 3)


@pytest.mark.parametrize("refuses", REFUSES)
def test_requests_of_a_warm_up_are_as_rare_as_others(
    monkeypatch: pytest.MonkeyPatch, refuses: tuple[str, ...]
) -> None:
    clock = Clock(monkeypatch)
    server = Server(clock, *refuses)
    asked = chain(provider(server), clock.limits(), warm=False)
    asked.wake(60)
    asked.wake(60)  # again, and a call to see whether it answers
    asked.ask("a text", clock() + 60)
    assert_apart(server.at, len(refuses) + 4)


def test_a_model_that_a_text_warms_up_has_a_turn_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    server = Server(clock)
    asked = chain(provider(server), clock.limits(), warm=False)
    asked.ask("a text", clock() + 60)
    assert_apart(server.at, 2)


def test_who_finds_the_model_warmed_up_meanwhile_uses_no_turn_for_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    its_limits = clock.limits()
    warmed = Member(provider(Server(clock)), limits=its_limits)
    warmed.wake(turn=its_limits.turn(clock() + 60))

    class Taken:
        """A lock. Another thread has warmed the model up before `acquire` returns."""

        def acquire(self, timeout: float) -> bool:
            second.warm = True
            return True

        def release(self) -> None: ...

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    built = provider(Server(clock))
    with monkeypatch.context() as patched:
        patched.setattr(REAL, "lock", Taken)
        second = Member(built, limits=its_limits)
    before = clock()
    assert second.wake(turn=its_limits.turn(clock() + 60)) is None
    assert clock() == before


def test_a_repair_has_a_turn_of_its_own_and_all_of_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    server = Server(clock)
    server.says = ["no JSON"]
    asked = chain(provider(server), clock.limits())
    asked.ask("a text", clock() + APART / 2, wait=60)
    assert_apart(server.at, 2)


def test_an_answer_that_cannot_be_repaired_within_the_limits_is_a_bad_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not an answer that the limits allow no turn for: that would cost no attempt."""
    clock = Clock(monkeypatch)
    server = Server(clock)
    server.says = ["no JSON"]
    with pytest.raises(BadOutputError):
        chain(provider(server), clock.limits()).ask("a text", clock() + 60, wait=APART / 2)
    assert len(server.at) == 1


@pytest.mark.parametrize("left", [APART / 2, 3 * APART / 2])
def test_a_request_that_would_come_after_the_deadline_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, left: float
) -> None:
    """It costs no attempt, and what was found out of the parameters stays."""
    clock = Clock(monkeypatch)
    server = Server(clock, "seed", "temperature")
    built = provider(server)
    asked = chain(built, clock.limits())
    with pytest.raises(LimitedError):
        asked.ask("a text", clock() + left)
    assert len(server.at) == math.ceil(left / APART)
    asked.ask("a text", clock() + 600)
    assert_apart(server.at, len(server.at))


def test_a_pause_that_comes_with_a_refusal_or_a_warm_up_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    http = Http(CONFIG)

    class Pausing(Server):
        def model(self, now: Parameters) -> Any:
            made = super().model(now)

            def invoke(messages: Any) -> Any:
                http.call.pause = 30.0
                return made.invoke(messages)

            return SimpleNamespace(invoke=invoke)

    server = Pausing(clock, "seed")
    asked = chain(provider(server, http), clock.limits(), warm=False)
    asked.wake(60)
    asked.ask("a text", clock() + 60)
    assert len(server.at) == 3
    assert all(b - a >= 30 for a, b in itertools.pairwise(server.at))


def test_a_call_that_sends_more_requests_keeps_its_slot_and_comes_first() -> None:
    """With one slot and a wait until the next request, the next call waits for the first's end."""
    its_limits = Limits(concurrency=1, per_minute=6000)
    order: queue.SimpleQueue[str] = queue.SimpleQueue()

    def second() -> None:
        with its_limits.turn(math.inf):
            order.put("second")

    waiting = threading.Thread(target=second)
    with its_limits.turn(math.inf):
        waiting.start()
        for _ in range(3):
            turns.next_request(time.monotonic() + 60)
            order.put("first")
            assert its_limits.used.running == 1
    waiting.join(60)
    assert [order.get(timeout=60) for _ in range(4)] == ["first"] * 3 + ["second"]


def test_a_call_past_its_deadline_sends_nothing_more_though_its_library_still_runs() -> None:
    its_limits = Limits()
    with its_limits.turn(math.inf):
        library = copy_context()
    with pytest.raises(TransientError):
        library.run(turns.next_request, time.monotonic() + 60)


@pytest.mark.parametrize("stops", ["closed", "given up"])
def test_the_wait_for_another_request_ends_with_the_worker_or_the_message(stops: str) -> None:
    given_up: list[bool] = []
    its_limits = Limits(per_minute=0.01)
    waits = threading.Event()

    def ask() -> bool:
        waits.set()
        return bool(given_up)

    ended: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def call() -> None:
        try:
            with its_limits.turn(math.inf, given_up=ask):
                waits.clear()
                turns.next_request(math.inf)
        except ModelError as error:
            ended.put(error)

    threading.Thread(target=call, daemon=True).start()
    assert waits.wait(60)
    if stops == "closed":
        its_limits.close()
    else:
        given_up.append(True)
        its_limits.wake()
    assert isinstance(ended.get(timeout=60), TransientError)


def test_what_ends_for_want_of_a_turn_is_no_overload() -> None:
    its_limits = Limits()
    with pytest.raises(LimitedError), its_limits.turn(math.inf):
        raise LimitedError("no turn", retry_after=7.0)
    assert not its_limits.lowered
    with its_limits.turn(time.monotonic() + 60):
        pass


def test_an_answer_without_a_turn_is_bound_by_its_deadline_alone() -> None:
    turns.next_request(time.monotonic() + 60)
    turns.keep_pause(30.0)
    with pytest.raises(TransientError):
        turns.next_request(time.monotonic() - 1)
