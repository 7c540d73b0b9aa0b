"""The chain of models: limits, pauses, fallbacks, and the one round of repair."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from selfheal_worker.model import breaker as breakers
from selfheal_worker.model import probe
from selfheal_worker.model.analysis import Call, nothing
from selfheal_worker.model.chain import Chain
from selfheal_worker.model.errors import (
    BadOutputError,
    ModelError,
    ModelUnavailableError,
    TransientError,
)
from selfheal_worker.model.limits import LimitedError, Limits
from selfheal_worker.model.member import Member
from selfheal_worker.model.provider import Answer, Usage
from selfheal_worker.runtime import REAL
from selfheal_worker.task import task_file
from selfheal_worker.task.answer import InvalidAnswerError
from tests.support.waiting import until

TASK = task_file.load()
GOOD: dict[str, Any] = {
    "primary_emotion": "Joy",
    "sentiment": "Positive",
    "confidence_score": 0.9,
    "key_phrases": [],
}
FAR = 600.0


class Model:
    """Answers as `say` does; counts its calls."""

    name = "test"
    version = "7"

    def __init__(self, model: str, say: Callable[[int], Any] = lambda n: GOOD) -> None:
        self.model = model
        self.say = say
        self.calls = 0
        self.closed = False

    def warm_up(self) -> None: ...

    def analyse(self, text: str, deadline: float) -> Answer:
        self.calls += 1
        said = self.say(self.calls)
        if isinstance(said, Exception):
            raise said
        return Answer(said, Usage(10, 3))

    def close(self) -> None:
        self.closed = True


class Mender(Model):
    """Can be given what was wrong."""

    told: tuple[str, str, str] = ("", "", "")

    def repair(self, text: str, said: str, problem: str, deadline: float) -> Answer:
        self.told = (text, said, problem)
        return self.analyse(text, deadline)


def _deadline() -> float:
    return time.monotonic() + FAR


def _chain(*models: Model, **more: Any) -> Chain:
    return Chain([Member(model) for model in models], TASK, **more)


def test_an_answer_says_whose_it_is() -> None:
    reply = _chain(Model("a")).ask("text", _deadline())
    assert reply.validated.fields() == GOOD
    assert reply.origin.described() == {"provider": "test", "name": "a", "version": "7"}
    assert not reply.degraded
    assert reply.usage == Usage(10, 3)


def test_a_bad_answer_is_repaired_once_with_the_error_quoted() -> None:
    bad = '{"primary_emotion": "Hunger"}'
    model = Mender("a", lambda n: bad if n == 1 else GOOD)
    calls: list[Call] = []
    reply = _chain(model, observe=calls.append).ask("text", _deadline())
    assert reply.validated.fields() == GOOD
    assert model.told[:2] == ("text", bad)
    assert model.told[2].startswith("primary_emotion is not one of Joy,")
    assert reply.usage == Usage(20, 6)
    assert [type(call.error) for call in calls] == [BadOutputError, type(None)]


def test_a_second_bad_answer_is_for_the_retries() -> None:
    model = Mender("a", lambda n: "no JSON")
    with pytest.raises(BadOutputError):
        _chain(model).ask("text", _deadline())
    assert model.calls == 2


def test_an_answer_that_a_plug_in_found_invalid_itself_is_repaired_too() -> None:
    model = Mender("a", lambda n: InvalidAnswerError("no label") if n == 1 else GOOD)
    assert _chain(model).ask("text", _deadline()).validated.fields() == GOOD
    assert model.told == ("text", "", "no label")


@pytest.mark.parametrize("clamp", [False, True])
def test_a_number_out_of_range_is_asked_again_and_then_clamped_if_that_is_set(clamp: bool) -> None:
    model = Mender("a", lambda n: GOOD | {"confidence_score": 1.5})
    asked_chain = _chain(model, clamp=clamp)
    if clamp:
        assert asked_chain.ask("text", _deadline()).validated.values["confidence_score"] == 1.0
    else:
        with pytest.raises(BadOutputError, match="confidence_score is not from 0 to 1"):
            asked_chain.ask("text", _deadline())
    assert model.calls == 2


@pytest.mark.parametrize(
    "error",
    [TransientError("x"), BadOutputError("x"), ModelUnavailableError("x"), ZeroDivisionError()],
)
def test_the_next_model_answers_where_one_fails_and_says_degraded(error: Exception) -> None:
    reply = _chain(Model("a", lambda n: error), Model("b")).ask("text", _deadline())
    assert (reply.origin.name, reply.degraded) == ("b", True)


def test_when_all_fail_a_model_that_is_away_excuses_no_message() -> None:
    def asking(*errors: Exception) -> type[BaseException]:
        models = [Model("m", lambda n, e=error: e) for error in errors]  # type: ignore[misc]
        with pytest.raises(ModelError) as caught:
            _chain(*models).ask("text", _deadline())
        return caught.type

    away, slow = ModelUnavailableError("away"), TransientError("slow")
    assert asking(away, away) is ModelUnavailableError
    assert asking(away, slow) is TransientError
    assert asking(slow, away) is TransientError


def test_a_model_is_ready_when_any_of_the_chain_is() -> None:
    class Missing(Model):
        def warm_up(self) -> None:
            raise ModelUnavailableError("not there")

    asked_chain = _chain(Missing("a"), Model("b"))
    asked_chain.wake(60)
    assert asked_chain.ask("text", _deadline()).origin.name == "b"
    with pytest.raises(ModelUnavailableError, match="not there"):
        _chain(Missing("a")).wake(60)


def test_a_probe_of_a_slow_model_has_the_time_of_a_call_after_its_warm_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a model that takes more than half of a deadline would stay away for ever."""
    now = 1000.0
    monkeypatch.setattr(REAL, "monotonic", lambda: now)

    class Slow(Model):
        def warm_up(self) -> None:
            nonlocal now
            now += 0.3

        def analyse(self, text: str, deadline: float) -> Answer:
            if now + 0.3 > deadline:
                raise TransientError("no time is left for the call")
            return super().analyse(text, deadline)

    asked_chain = _chain(Slow("a"))
    assert asked_chain.loading
    asked_chain.wake(0.5)
    assert not asked_chain.loading
    asked_chain.wake(0.5)


class Loading(Model):
    """A model that cannot be reached while `there` is not set, and loads until `loaded` is."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self.there = threading.Event()
        self.there.set()
        self.loaded = threading.Event()
        self.begun = threading.Semaphore(0)
        self.warm_ups = 0

    def warm_up(self) -> None:
        self.warm_ups += 1
        there = self.there.is_set()
        self.begun.release()
        if not there:
            raise ModelUnavailableError("not there")
        assert self.loaded.wait(60)


class Clock:
    """Stands still unless it is asked to continue: no call is late on a slow machine."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._now = time.monotonic()
        monkeypatch.setattr(REAL, "monotonic", self)

    def __call__(self) -> float:
        return self._now

    def pass_by(self, seconds: float) -> None:
        self._now += seconds


def _ask_until(done: Callable[[], bool], asked_chain: Chain, clock: Clock) -> set[str]:
    """Ask and ask, each time later than any pause of a breaker; whose the answers were.

    No time passes while a probe is under way: it would be replaced after its deadline.
    """
    end, whose = time.monotonic() + 60, set[str]()
    while not done():
        assert time.monotonic() < end
        if all(one.circuit.state is not breakers.State.PROBING for one in asked_chain.members):
            clock.pass_by(5)
        whose.add(asked_chain.ask("text", clock() + FAR).origin.name)
    return whose


def test_a_model_that_is_away_is_left_alone_until_a_probe_finds_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    first = Model("a", lambda n: ModelUnavailableError("away"))
    asked_chain = _chain(first, Model("b"))
    asked_chain.wake(60)
    until("both are warm", lambda: not asked_chain.loading)
    for _ in range(20):
        assert asked_chain.ask("text", clock() + FAR).degraded
    assert first.calls == 1
    first.say = lambda n: GOOD
    _ask_until(lambda: asked_chain.members[0].circuit.closed, asked_chain, clock)
    assert not asked_chain.ask("text", clock() + FAR).degraded


class Together:
    """Asks from many threads, as the handlers do; what came of each is in `ended`."""

    def __init__(self, asked_chain: Chain, threads: int, deadline: float) -> None:
        self._chain = asked_chain
        self._deadline = deadline
        self.ended: queue.SimpleQueue[object] = queue.SimpleQueue()
        for _ in range(threads):
            threading.Thread(target=self._ask, daemon=True).start()

    def _ask(self) -> None:
        try:
            self.ended.put(self._chain.ask("text", self._deadline).origin.name)
        except ModelError as error:
            self.ended.put(type(error))


def test_a_fallback_that_was_away_at_first_is_warmed_while_the_active_model_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    warm: queue.SimpleQueue[str] = queue.SimpleQueue()
    fallback = Loading("b")
    fallback.there.clear()
    fallback.loaded.set()
    asked_chain = _chain(Model("a"), fallback, loaded=lambda origin, seconds: warm.put(origin.name))
    asked_chain.wake(60)
    assert fallback.begun.acquire(timeout=60)
    fallback.there.set()
    assert _ask_until(lambda: not asked_chain.loading, asked_chain, clock) == {"a"}
    assert [warm.get(timeout=60) for _ in "ab"] == ["a", "b"]
    assert fallback.calls == 0


def test_no_message_waits_for_a_fallback_that_loads_and_it_is_loaded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    active, fallback = Model("a", lambda n: ModelUnavailableError("away")), Loading("b")
    warm: queue.SimpleQueue[str] = queue.SimpleQueue()
    asked_chain = _chain(active, fallback, loaded=lambda origin, seconds: warm.put(origin.name))
    asked_chain.wake(60)
    assert warm.get(timeout=60) == "a"
    assert fallback.begun.acquire(timeout=60)
    together = Together(asked_chain, 8, _deadline())
    assert {together.ended.get(timeout=60) for _ in range(8)} == {ModelUnavailableError}
    clock.pass_by(FAR)
    fallback.loaded.set()
    assert warm.get(timeout=60) == "b"
    assert asked_chain.ask("text", clock() + FAR).degraded
    assert fallback.warm_ups == 1


def test_who_waited_while_another_loaded_the_model_does_not_load_it_again() -> None:
    model = Loading("a")
    warm: list[str] = []
    asked_chain = _chain(model, loaded=lambda origin, seconds: warm.append(origin.name))
    together = Together(asked_chain, 8, _deadline())
    assert model.begun.acquire(timeout=60)
    with pytest.raises(ModelUnavailableError, match="model 'a' is still loading"):
        asked_chain.ask("text", time.monotonic())  # no longer than the message's deadline
    model.loaded.set()
    assert [together.ended.get(timeout=60) for _ in range(8)] == ["a"] * 8
    assert (model.warm_ups, warm) == (1, ["a"])


def test_an_active_model_that_loads_for_long_does_not_keep_the_others_from_answering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    active, fallback = Loading("a"), Model("b")
    asked_chain = _chain(active, fallback)

    class Patient(queue.SimpleQueue[Any]):
        """Of the fallback's probes, however long they take."""

        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            return super().get(block, 60)

    kinds = itertools.chain([queue.SimpleQueue], itertools.repeat(Patient))
    monkeypatch.setattr(REAL, "queue", lambda: next(kinds)())
    for _ in range(2):  # the second time its look is under way
        asked_chain.wake(0.01)
        assert asked_chain.ask("text", clock() + FAR).origin.name == "b"
    active.loaded.set()
    _ask_until(lambda: active.calls > 0, asked_chain, clock)
    assert active.warm_ups == 1


def test_a_machine_without_a_thread_to_spare_still_answers_and_probes_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    active, fallback = Model("a"), Model("b")
    asked_chain = _chain(active, fallback)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ModelUnavailableError, match="can't start new thread"):
            asked_chain.wake(60)
    asked_chain.wake(60)
    clock.pass_by(5)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert asked_chain.ask("text", clock() + FAR).origin.name == "a"
    assert asked_chain.loading
    assert _ask_until(lambda: not asked_chain.loading, asked_chain, clock) == {"a"}


def test_a_model_that_is_loaded_again_does_not_keep_the_others_from_answering(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Clock(monkeypatch)
    warm: queue.SimpleQueue[str] = queue.SimpleQueue()
    asked = threading.Event()

    def say(_: int) -> Any:
        asked.set()
        return GOOD

    active, fallback = Loading("a"), Model("b", say)
    active.loaded.set()
    asked_chain = _chain(active, fallback, loaded=lambda origin, seconds: warm.put(origin.name))
    asked_chain.wake(60)
    assert {warm.get(timeout=60) for _ in "ab"} == {"a", "b"}
    active.loaded.clear()
    with contextlib.suppress(ModelError):  # a probe of the fallback that takes its time
        asked_chain.wake(0.01)
    assert asked.wait(60)
    for _ in range(2):
        assert active.begun.acquire(timeout=60)
    assert active.warm_ups == 2
    active.loaded.set()


@pytest.mark.parametrize(("pinned", "fine"), [("", True), ("7", True), ("8", False)])
def test_a_version_that_is_pinned_must_be_the_models(pinned: str, fine: bool) -> None:
    asked_chain = Chain([Member(Model("a"), version=pinned, key="triage")], TASK)
    if fine:
        asked_chain.wake(60)
    else:
        with pytest.raises(ModelUnavailableError, match=r"models\.triage\.version is 8.* has 7"):
            asked_chain.wake(60)


def test_a_model_without_a_version_has_the_one_that_was_given() -> None:
    model = Model("a")
    model.version = ""
    asked_chain = Chain([Member(model, version="2026-01")], TASK)
    assert asked_chain.ask("text", _deadline()).origin.version == "2026-01"


def test_retry_after_is_waited_for_where_it_fits() -> None:
    model = Model("a", lambda n: TransientError("429", retry_after=0.3) if n == 1 else GOOD)
    begun = time.monotonic()
    assert _chain(model).ask("text", _deadline()).validated.fields() == GOOD
    assert time.monotonic() - begun >= 0.3


def test_retry_after_that_does_not_fit_is_reported_and_nobody_asks_meanwhile() -> None:
    model = Model("a", lambda n: TransientError("429", retry_after=100.0))
    asked_chain = _chain(model)
    for _ in range(3):
        with pytest.raises(TransientError) as caught:
            asked_chain.ask("text", time.monotonic() + 10)
        assert caught.value.retry_after is not None
        assert 50 < caught.value.retry_after <= 100
    assert model.calls == 1


def test_a_probe_asks_nobody_while_the_server_wants_a_pause() -> None:
    model = Loading("a")
    model.loaded.set()
    asked_chain = _chain(model)
    asked_chain.wake(60)
    model.say = lambda n: TransientError("429", retry_after=100.0)
    with pytest.raises(TransientError):
        asked_chain.wake(10)
    assert (model.warm_ups, model.calls) == (2, 1)
    for _ in range(3):
        with pytest.raises(LimitedError, match="requested a pause"):
            asked_chain.wake(10)
    assert (model.warm_ups, model.calls) == (2, 1)


def test_a_probe_takes_its_turns_and_no_more() -> None:
    model = Loading("a")
    model.loaded.set()
    asked_chain = Chain([Member(model, limits=Limits(per_minute=1))], TASK)
    asked_chain.wake(30)
    with pytest.raises(LimitedError):
        asked_chain.wake(30)
    assert (model.warm_ups, model.calls) == (1, 0)


def test_a_probe_is_content_with_the_warm_up_where_the_limit_leaves_no_turn_for_a_call() -> None:
    model = Model("a")
    asked_chain = Chain([Member(model, limits=Limits(per_minute=1))], TASK)
    asked_chain.members[0].warm = True
    asked_chain.wake(30)
    assert model.calls == 0


def test_who_got_no_turn_at_a_model_of_the_chain_has_not_seen_it_fail() -> None:
    first = Model("a", lambda n: TransientError("429", retry_after=1000.0))
    asked_chain = _chain(first, Model("b"))
    for _ in range(breakers.THRESHOLD + 1):
        assert asked_chain.ask("text", _deadline()).degraded
    assert first.calls == 1
    assert asked_chain.members[0].circuit.breaker.failures == 1


def test_a_limit_does_not_hide_another_models_failure() -> None:
    first = Model("a", lambda n: TransientError("429", retry_after=1000.0))
    asked_chain = _chain(first, Model("b", lambda n: BadOutputError("b's")))
    with pytest.raises(TransientError, match="429"):
        asked_chain.ask("text", _deadline())
    with pytest.raises(BadOutputError, match="b's"):
        asked_chain.ask("text", _deadline())


def test_no_more_calls_at_once_than_the_limit() -> None:
    limits = Limits(concurrency=2)
    inside: list[int] = []
    most: list[int] = []
    lock = threading.Lock()
    gate = threading.Semaphore(0)

    def call() -> None:
        with limits.turn(_deadline()):
            with lock:
                inside.append(1)
                most.append(len(inside))
            gate.acquire(timeout=60)
            with lock:
                inside.pop()

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in threads:
        gate.release()
    for thread in threads:
        thread.join(60)
    assert len(most) == 6
    assert max(most) <= 2


def test_no_more_calls_a_minute_than_the_limit() -> None:
    now = [0.0]
    limits = Limits(per_minute=6, clock=lambda: now[0])
    for _ in range(5):
        with limits.turn(now[0] + 1):
            pass
        with pytest.raises(LimitedError) as caught, limits.turn(now[0] + 1):
            pass
        assert caught.value.retry_after == pytest.approx(10)
        now[0] += 10


def test_who_waits_for_a_turn_is_notified_when_it_stops() -> None:
    model = Model("a")
    asked_chain = Chain([Member(model, limits=Limits(concurrency=1))], TASK)
    waits = threading.Event()
    ended: list[BaseException] = []
    limits = asked_chain.members[0].limits

    def wait() -> None:
        waits.set()
        try:
            asked_chain.ask("text", _deadline())
        except TransientError as error:
            ended.append(error)

    with limits.turn(_deadline()):
        thread = threading.Thread(target=wait)
        thread.start()
        waits.wait(60)
        asked_chain.close()
        thread.join(60)
    assert [str(error) for error in ended] == ["the worker is stopping"]
    assert model.closed


def test_a_failure_that_is_judged_while_a_probe_starts_does_not_undo_the_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two threads' updates, forced into the order in which one read before the other wrote."""
    asked_chain = _chain(Model("a"), Model("b"))
    asked_chain.wake(60)
    first = asked_chain.members[0]
    probing = breakers.Breaker(breakers.State.PROBING)
    real = breakers.failed
    locked: list[bool] = []

    def failed(before: breakers.Breaker, now: float, **more: Any) -> breakers.Breaker:
        locked.append(first.circuit.changing.locked())
        return real(before, now, **more)

    monkeypatch.setattr(breakers, "failed", failed)
    first.circuit.change(lambda _: probing)
    probe.Probes(asked_chain.members, loaded=nothing).failed(first, ModelUnavailableError("away"))
    assert first.circuit.breaker is probing
    assert locked == [True]
