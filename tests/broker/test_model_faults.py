"""A model that fails: retries by the ladder, the circuit breaker, and nothing burnt."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from selfheal_worker.model.providers.chat import WARM_UP_TEXT
from tests.broker import unreachable_host
from tests.broker.release_lines import each_line
from tests.broker.test_delivery import bodies, ids
from tests.broker.unreachable_host import Elsewhere
from tests.support.fake_ollama import GOOD, FakeOllama, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.broker.conftest import StartWorker
    from tests.support.rabbit import Vhost
    from tests.support.worker_process import WorkerProcess


@each_line
def test_a_failure_is_tried_again_by_the_ladder(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama
) -> None:
    failures = {"r 0.": 1, "r 1.": 2}

    def decide(text: str) -> Reply:
        times = next((n for part, n in failures.items() if part in text), 0)
        return Reply(status=500 if model.calls[text] <= times else 200)

    model.decide = decide
    worker = start_worker(vhost.uri, **model.env).ready()
    began = time.monotonic()
    vhost.publish(bodies(3))
    results = {}
    for body, _ in vhost.take("feedback.results", 3):
        result = json.loads(body)
        results[result["id"]] = result["attempts"]
    assert results == {"m0": 2, "m1": 3, "m2": 1}
    assert time.monotonic() - began >= 3  # the ladder's 1 s and 2 s were waited
    assert worker.metric('selfheal_worker_messages_total{outcome="retried"}') == 3
    assert vhost.count("feedback.dead-letters") == 0


@each_line
def test_bad_output_ends_in_the_dead_letters_with_its_story(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama
) -> None:
    model.decide = lambda text: Reply("no json at all" if "r 0." in text else GOOD)
    start_worker(vhost.uri, **model.env, MAX_ATTEMPTS=3).ready()
    vhost.publish(bodies(2), headers={"traceparent": "t"}, expiration="600000")
    assert ids(vhost.take("feedback.results", 1)) == ["m1"]
    ((body, properties),) = vhost.take("feedback.dead-letters", 1)
    assert json.loads(body)["id"] == "m0"
    headers = properties.headers
    assert headers["x-selfheal-reason"] == "retries_exhausted"
    assert headers["x-selfheal-error-class"] == "BadOutputError"
    assert headers["x-selfheal-attempts"] == 3
    assert headers["x-selfheal-first-time"] < headers["x-selfheal-last-time"]
    assert headers["x-selfheal-original-routing-key"] == "feedback"
    assert headers["traceparent"] == "t"
    # Each attempt is one call, and one more that tells the model what was wrong.
    assert model.calls[json.loads(body)["text"]] == 6


def test_a_model_that_goes_away_burns_nothing_and_work_resumes_by_itself(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama
) -> None:
    worker = start_worker(vhost.uri, **model.env, MAX_ATTEMPTS=2).ready()
    model.stop()
    vhost.publish(bodies(30))
    worker.wait_event("circuit breaker", breaker="model", state="open")
    vhost.wait_count("feedback", 30)
    code, why = worker.get("/readyz")
    assert code == 503
    assert "the model is away" in why
    assert worker.get("/healthz")[0] == 200
    assert worker.progress()["breakers"]["model"] in ("open", "probing")
    assert worker.metric('selfheal_worker_breaker_state{breaker="model"}') > 0
    model.start()
    taken = vhost.take("feedback.results", 30)
    assert {json.loads(body)["attempts"] for body, _ in taken} == {1}
    assert ids(taken) == ids([(body, None) for body in bodies(30)])
    assert vhost.count("feedback.dead-letters") == 0
    worker.ready()
    changes = [line["state"] for line in worker.lines() if line["event"] == "circuit breaker"]
    assert changes == ["closed", "open", "closed"]


def test_a_model_that_loads_for_longer_than_a_call_may_take_is_waited_for_again(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama
) -> None:
    worker = start_worker(vhost.uri, **model.env | {"MODEL_DEADLINE": 1}).ready()
    model.stop()
    vhost.publish(bodies(1))
    worker.wait_event("circuit breaker", breaker="model", state="open")
    model.decide = lambda text: Reply(delay=3 if text == WARM_UP_TEXT else 0)
    model.start()
    assert ids(vhost.take("feedback.results", 1)) == ["m0"]


def test_a_model_that_answers_only_errors_opens_the_breaker_and_burns_little(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama
) -> None:
    worker = start_worker(vhost.uri, **model.env, MAX_ATTEMPTS=2, CONCURRENCY=4).ready()
    model.decide = lambda text: Reply(status=503)
    vhost.publish(bodies(30))
    worker.wait_event("circuit breaker", breaker="model", state="open")
    worker.wait_in_flight(0)
    model.decide = lambda text: Reply()
    taken = vhost.take("feedback.results", 30)
    assert sum(json.loads(body)["attempts"] - 1 for body, _ in taken) <= 4
    assert vhost.count("feedback.dead-letters") == 0


def test_a_server_that_asks_for_a_pause_longer_than_a_call_is_left_alone_for_so_long(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama
) -> None:
    worker = start_worker(vhost.uri, **model.env | {"MODEL_DEADLINE": 2}, CONCURRENCY=1).ready()
    pause, asked = 8, list[float]()

    def decide(_: str) -> Reply:
        asked.append(time.monotonic())
        return Reply(status=429, retry_after=f"{pause}") if len(asked) == 1 else Reply()

    model.decide = decide
    vhost.publish(bodies(10))
    taken = vhost.take("feedback.results", 10)
    changes = [line["state"] for line in worker.lines() if line["event"] == "circuit breaker"]
    assert changes == ["closed", "open", "closed"]
    assert asked[1] - asked[0] >= pause
    # An overload is the server's state: it counts against no text.
    assert {json.loads(body)["attempts"] for body, _ in taken} == {1}
    assert vhost.count("feedback.dead-letters") == 0


def test_a_model_that_is_away_at_the_start(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama
) -> None:
    model.stop()
    worker = start_worker(vhost.uri, **model.env)
    worker.wait_event("the model cannot be reached yet")
    worker.wait_event("connected to the broker")
    vhost.publish(bodies(2))
    assert worker.get("/healthz")[0] == 200
    assert "not warm" in worker.get("/readyz")[1]
    assert vhost.count("feedback") == 2
    model.start()
    assert len(vhost.take("feedback.results", 2)) == 2


def test_sigterm_while_the_model_is_away(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama
) -> None:
    worker = start_worker(vhost.uri, **model.env).ready()
    model.decide = lambda text: Reply(delay=2)
    vhost.publish(bodies(3))
    worker.wait_in_flight(3)
    model.stop()
    assert worker.terminate() == 0
    taken = vhost.take("feedback") + vhost.take("feedback.results")
    # A call that was cut may have gone to the delay ladder: it comes back within its 1 s.
    taken += vhost.take("feedback", 3 - len(taken))
    assert ids(taken) == ["m0", "m1", "m2"]


@pytest.fixture
def elsewhere(unavailable: Callable[[str], None]) -> Iterator[Elsewhere]:
    if why := unreachable_host.available():
        unavailable(why)
    made = Elsewhere()
    try:
        made.make()
        yield made
    finally:
        made.remove()


def test_a_model_server_that_vanishes_without_a_word_is_found_long_before_the_deadline(
    vhost: Vhost, start_worker: StartWorker, elsewhere: Elsewhere
) -> None:
    """Its node lost its power: calls under way, connections that were kept, and new ones."""
    model = FakeOllama(elsewhere.address)
    with elsewhere.inside():
        model.start()
    env = {**model.env, "MODEL_DEADLINE": 3600, "CONCURRENCY": 4}
    workers = [start_worker(vhost.uri, **env).ready() for _ in range(2)]
    model.decide = lambda text: Reply(delay=3600)
    vhost.publish(bodies(4))
    for worker in workers:
        worker.until("not shared", lambda: worker.progress()["in_flight"] == 2)  # noqa: B023
    elsewhere.vanish()
    for worker in workers:
        worker.wait_event("circuit breaker", breaker="model", state="open")
        worker.until("still ready", lambda: worker.get("/readyz")[0] == 503)  # noqa: B023
        assert worker.get("/healthz")[0] == 200
    vhost.wait_count("feedback", 4)
    model.decide = lambda text: Reply()
    elsewhere.come_back()
    taken = vhost.take("feedback.results", 4)
    model.stop()
    assert ids(taken) == ["m0", "m1", "m2", "m3"]
    # What was under way may have been tried once more before it was sure that nobody is there.
    assert {json.loads(body)["attempts"] for body, _ in taken} <= {1, 2}
    assert vhost.count("feedback.dead-letters") == 0


def test_half_an_hour_without_a_model(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama
) -> None:
    """Scaled down with the ladder, which is climbed in 3 s here and in 156 s by default: gone for
    good, there but answering with errors, there but silent. The probes' pauses are not scaled.

    How soon work resumes is asserted of simulated worlds (`fresh_messages_are_answered_soon`)."""
    scaled = {**model.env, "MAX_ATTEMPTS": 3, "SHUTDOWN_GRACE": 1}
    worker = start_worker(vhost.uri, **scaled).ready()
    model.stop()
    vhost.publish(bodies(50))
    worker.wait_event("circuit breaker", breaker="model", state="open")
    away = [None, Reply(status=503), Reply(delay=60)]
    for phase, reply in enumerate(away):
        if reply is not None:
            # A silent warm-up may last for minutes, and a probe with it.
            model.decide = lambda text, reply=reply: (  # type: ignore[misc]
                Reply() if text == WARM_UP_TEXT and reply.delay else reply
            )
            model.start()
        before = len(probes(worker))
        worker.until("no probes", lambda: len(probes(worker)) >= before + 2)  # noqa: B023
        vhost.publish(bodies(10, first=50 + 10 * phase))
        assert worker.get("/healthz")[0] == 200
        assert worker.get("/readyz")[0] == 503
        if reply is not None:
            model.stop()
    model.decide = lambda text: Reply()
    back = time.time()
    model.start()
    taken = vhost.take("feedback.results", 80)
    first = min(json.loads(body)["timings"]["received"] for body, _ in taken)
    print(f"work resumed {first - back:.1f} s after the model was back")  # noqa: T201
    assert ids(taken) == ids([(body, None) for body in bodies(80)])
    assert vhost.count("feedback.dead-letters") == vhost.count("feedback") == 0
    assert len([line for line in worker.lines() if line["event"] == "started"]) == 1
    changes = [line["state"] for line in worker.lines() if line["event"] == "circuit breaker"]
    assert changes == ["closed", "open", "closed"]


def probes(worker: WorkerProcess) -> list[dict[str, Any]]:
    return [line for line in worker.lines() if line["event"] == "the model is still away"]
