"""SIGTERM, SIGKILL and hung handlers: nothing is lost, and what can be is done once."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.broker.release_lines import each_line
from tests.broker.test_broker_faults import break_while_working, collect
from tests.broker.test_delivery import bodies, ids
from tests.support.fake_ollama import Reply
from tests.support.rabbit import PASSWORD, USER
from tests.support.tcp_proxy import Proxy
from tests.support.worker_process import command, environment

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker.conftest import StartWorker
    from tests.support.fake_ollama import FakeOllama
    from tests.support.rabbit import Rabbit, Vhost


def test_sigterm_finishes_what_is_in_flight(
    vhost: Vhost, start_worker: StartWorker, hang: Path
) -> None:
    env = {"CONCURRENCY": 4, "FAULT_MODEL_HANG_FILE": hang, "SHUTDOWN_GRACE": 50}
    worker = start_worker(vhost.uri, **env).ready()
    vhost.publish(bodies(10))
    worker.wait_in_flight(4)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_event("stopping")
    hang.unlink()
    assert worker.process.wait(60) == 0
    answered = vhost.take("feedback.results")
    assert len(answered) == 4
    left = vhost.take("feedback")
    assert ids(answered + left) == ids([(body, None) for body in bodies(10)])
    with vhost.channel() as channel:
        assert not channel.basic_get("feedback")[0]
    assert worker.lines()[-1]["event"] == "stopped"


@each_line
def test_after_the_grace_period_the_rest_is_requeued_uncounted(
    vhost: Vhost, start_worker: StartWorker, hang: Path
) -> None:
    env = {"CONCURRENCY": 3, "FAULT_MODEL_HANG_FILE": hang, "SHUTDOWN_GRACE": 0.5}
    worker = start_worker(vhost.uri, **env).ready()
    vhost.publish(bodies(3), headers={"mine": 1})
    worker.wait_in_flight(3)
    assert worker.terminate() == 0
    with vhost.channel() as channel:
        for _ in range(3):
            method, properties, _ = channel.basic_get("feedback", auto_ack=True)
            assert not method.redelivered
            assert properties.headers["mine"] == 1
            assert not properties.headers.get("x-delivery-count")
        assert channel.basic_get("feedback")[0] is None
    assert vhost.count("feedback.results") == 0


def test_a_second_sigterm_ends_it_at_once(
    vhost: Vhost, start_worker: StartWorker, hang: Path
) -> None:
    worker = start_worker(vhost.uri, FAULT_MODEL_HANG_FILE=hang, SHUTDOWN_GRACE=60).ready()
    vhost.publish(bodies(2))
    worker.wait_in_flight(2)
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_event("stopping")
    assert worker.terminate() == 0
    assert vhost.count("feedback") == 2


def test_sigterm_before_there_is_a_broker(start_worker: StartWorker) -> None:
    worker = start_worker("amqp://127.0.0.1:9/")
    worker.wait_event("not connected to the broker")
    assert worker.terminate() == 0


# Five say the same as fifty, with a limit of three, in a tenth of the time.
SHUTDOWNS = 50 if os.environ.get("SELFHEAL_LONG") else 5


@each_line
def test_many_shutdowns_on_one_message_are_survived(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    """With a delivery limit far below: handing back does not use it up."""
    slow = {"DELIVERY_LIMIT": 3, "MAX_ATTEMPTS": 2, "SHUTDOWN_GRACE": 0}
    env = environment(vhost.uri, **slow)
    assert command(env, "topology").returncode == 0
    vhost.publish(bodies(1))
    for _ in range(SHUTDOWNS):
        worker = start_worker(vhost.uri, **slow, FAULT_MODEL_DELAY=50)
        worker.wait_in_flight(1)
        assert worker.terminate() == 0
    assert vhost.count("feedback.dead-letters") == 0
    start_worker(vhost.uri, **slow).ready()
    ((body, _),) = vhost.take("feedback.results", 1)
    assert json.loads(body)["attempts"] == 1


def test_sigkill_loses_nothing_and_doubles_at_most_what_was_in_flight(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    victim = start_worker(vhost.uri, FAULT_MODEL_DELAY=0.2, CONCURRENCY=8).ready()
    break_while_working(victim, vhost)
    victim.kill()
    start_worker(vhost.uri, CONCURRENCY=8).ready()
    assert sum(collect(vhost, 120).values()) <= 120 + 8
    assert vhost.count("feedback.dead-letters") == 0


@each_line
def test_a_message_that_kills_workers_ends_in_the_dead_letters(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    """The delivery limit, the last net; the tools read the broker's own form of a dead letter."""
    env = {"DELIVERY_LIMIT": 2, "FAULT_MODEL_DELAY": 50}
    for number in range(3):
        worker = start_worker(vhost.uri, **env)
        worker.ready()
        if number == 0:
            vhost.publish(bodies(1))
        worker.wait_in_flight(1)
        worker.kill()
    vhost.wait_count("feedback.dead-letters", 1)
    done = command(environment(vhost.uri), "dead-letters", "list", "-o", "json")
    letter = json.loads(done.stdout)
    assert letter["reason"] == "delivery_limit"
    assert letter["id"] == "m0"
    assert letter["original_routing_key"] == "feedback"
    assert letter["last_time"]


def test_a_call_past_its_deadline_is_a_retry(
    vhost: Vhost, start_worker: StartWorker, model: FakeOllama
) -> None:
    model.decide = lambda text: Reply(delay=60 if model.calls[text] == 1 and "r 0." in text else 0)
    worker = start_worker(vhost.uri, **{**model.env, "MODEL_DEADLINE": 5}).ready()
    vhost.publish(bodies(2))
    taken = vhost.take("feedback.results", 2)
    assert ids(taken) == ["m0", "m1"]
    assert {json.loads(body)["id"]: json.loads(body)["attempts"] for body, _ in taken} == {
        "m0": 2,
        "m1": 1,
    }
    assert worker.get("/healthz")[0] == 200


STUBBORN = """
import time
from pathlib import Path
from selfheal_worker.model.provider import Answer

class Stubborn:
    name, model, version = "stubborn", "rock", "1"
    def warm_up(self): pass
    def close(self): pass
    def analyse(self, text, deadline):
        if "hang" in text:
            Path(__file__).with_name("hangs").touch()
            time.sleep(3600)
        if "bug" in text:
            raise ZeroDivisionError(text)
        return Answer({"primary_emotion": "Neutral", "sentiment": "Neutral",
                       "confidence_score": 1, "key_phrases": []})

def build(config):
    return Stubborn()
"""


@pytest.fixture
def stubborn(tmp_path: Path) -> dict[str, str]:
    """A provider of a stranger, installed beside us; some texts make it hang or fail. Before it
    hangs, it leaves the file `hangs` in tmp_path."""
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    info = tmp_path / "stubborn-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stubborn\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[selfheal.providers]\nstubborn = stubborn:build\n")
    return {"PYTHONPATH": str(tmp_path), "MODEL_PROVIDER": "stubborn", "MODEL_DEADLINE": "0.5"}


def test_a_hung_handler_is_counted_and_its_message_tried_elsewhere(
    vhost: Vhost, start_worker: StartWorker, stubborn: dict[str, str]
) -> None:
    worker = start_worker(vhost.uri, **stubborn).ready()
    vhost.publish([b'{"id": "h", "text": "hang"}', *bodies(1)])
    assert ids(vhost.take("feedback.results", 1)) == ["m0"]
    worker.wait_event("a handler is past its deadline", id="h")
    code, why = worker.get("/healthz")
    assert code == 503
    assert "1 handlers are past their deadline" in why
    assert worker.metric("selfheal_worker_handler_hangs_total") == 1
    # The kubelet would restart it now; its message is already where another worker gets it.
    assert worker.terminate() == 0
    ((body, properties),) = vhost.take("feedback", 1)
    assert body == b'{"id": "h", "text": "hang"}'
    assert properties.headers["x-selfheal-attempts"] == 1


def test_a_handler_that_hung_before_the_wire_was_cut_is_found(
    vhost: Vhost,
    start_worker: StartWorker,
    stubborn: dict[str, str],
    tmp_path: Path,
    rabbit: Rabbit,
) -> None:
    """Its message is somebody else's by then; but its thread is lost."""
    proxy = Proxy(rabbit.amqp)
    uri = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}/{vhost.name}"
    worker = start_worker(uri, **stubborn, CONCURRENCY=1).ready()
    vhost.publish([b'{"id": "h", "text": "hang"}'])
    # Not only in flight: what no handler has begun with when the wire is cut, none begins with.
    worker.until("no call hangs", (tmp_path / "hangs").exists)
    proxy.refuse()  # first: it would come back at once
    proxy.cut()
    worker.wait_event("not connected to the broker")
    worker.until("healthy without a thread", lambda: worker.get("/healthz")[0] == 503)
    assert "1 handlers are past their deadline" in worker.get("/healthz")[1]
    vhost.wait_count("feedback", 1)
    proxy.close()


def test_a_fault_in_a_provider_ends_in_the_dead_letters_without_the_text(
    vhost: Vhost, start_worker: StartWorker, stubborn: dict[str, str]
) -> None:
    worker = start_worker(vhost.uri, **stubborn, MAX_ATTEMPTS=2).ready()
    vhost.publish([b'{"id": "b", "text": "bug secret-text"}'])
    ((_, properties),) = vhost.take("feedback.dead-letters", 1)
    assert properties.headers["x-selfheal-reason"] == "retries_exhausted"
    assert properties.headers["x-selfheal-error-class"] == "ZeroDivisionError"
    assert properties.headers["x-selfheal-attempts"] == 2
    assert "secret-text" not in str(properties.headers)
    assert "secret-text" not in worker.log.read_text()
    assert worker.get("/healthz")[0] == 200
