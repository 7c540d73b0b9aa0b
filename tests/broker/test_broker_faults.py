"""A broker that goes away, refuses, is full, or lacks a queue."""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.broker.release_lines import each_line, each_own_line
from tests.broker.test_delivery import bodies, ids
from tests.support.rabbit import PASSWORD, USER, Rabbit, available
from tests.support.tcp_proxy import Proxy
from tests.support.worker_process import WAIT, command, environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.broker.conftest import StartWorker
    from tests.support.rabbit import Vhost
    from tests.support.worker_process import WorkerProcess


def collect(vhost: Vhost, number: int, seconds: float = WAIT) -> Counter[str]:
    """Results until there are number of different ids."""
    seen: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while len(seen) < number:
        seen.update(json.loads(body)["id"] for body, _ in vhost.take("feedback.results"))
        assert time.monotonic() < end, f"{len(seen)} of {number}"
        time.sleep(0.05)
    return seen


def break_while_working(worker: WorkerProcess, vhost: Vhost) -> None:
    vhost.publish(bodies(120))
    worker.until(
        "no work",
        lambda: worker.metric('selfheal_worker_messages_total{outcome="answered"}') > 8,
    )


@each_own_line
def test_a_restarted_and_a_killed_broker(own_rabbit: Rabbit, start_worker: StartWorker) -> None:
    vhost = own_rabbit.add_vhost("v")
    worker = start_worker(vhost.uri, FAULT_MODEL_DELAY=0.3).ready()
    break_while_working(worker, vhost)
    own_rabbit.stop()
    worker.wait_event("not connected to the broker")
    assert worker.get("/readyz")[0] == 503
    assert worker.get("/healthz")[0] == 200
    own_rabbit.start()
    worker.wait_event("connected to the broker", times=2)
    own_rabbit.kill()
    worker.wait_event("not connected to the broker", times=2)
    own_rabbit.start()
    seen = collect(vhost, 120)
    assert sum(seen.values()) <= 120 + 2 * 8
    assert vhost.count("feedback.dead-letters") == 0
    worker.ready()
    vhost.wait_count("feedback", 0)
    assert worker.terminate() == 0


def test_wrong_credentials_are_reported_once_and_fixed_by_rotation(
    rabbit: Rabbit, vhost: Vhost, start_worker: StartWorker, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("wrong-one\n")
    worker = start_worker(
        "",
        AMQP_HOST="127.0.0.1",
        AMQP_PORT=rabbit.amqp,
        AMQP_VHOST=vhost.name,
        AMQP_USERNAME="selfheal",
        AMQP_PASSWORD_FILE=password,
    )
    said = worker.wait_event("not connected to the broker", why="refused user name or password")
    assert said["level"] == "error"
    assert worker.get("/readyz")[0] == 503
    assert worker.get("/healthz")[0] == 200
    assert "wrong-one" not in worker.log.read_text()
    password.write_text("correct-horse\n")
    worker.ready()
    assert len([1 for line in worker.lines() if line["event"].startswith("not conn")]) == 1


def test_credentials_are_rotated_under_a_worker(
    vhost: Vhost, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Username and password are in files; after the rotation only the new user may connect."""
    rabbit = vhost.rabbit
    old, new = (urlsplit(vhost.uri_of_user(configure=".*", write=".*", read=".*")) for _ in "ab")
    username, password = tmp_path / "username", tmp_path / "password"
    username.write_text(f"{old.username}\n")
    password.write_text(f"{old.password}\n")
    worker = start_worker(
        "",
        AMQP_HOST="127.0.0.1",
        AMQP_PORT=rabbit.amqp,
        AMQP_VHOST=vhost.name,
        AMQP_USERNAME_FILE=username,
        AMQP_PASSWORD_FILE=password,
    ).ready()
    rabbit.api("PUT", f"users/{new.username}", {"password": "rotated", "tags": ""})
    username.write_text(f"{new.username}\n")
    password.write_text("rotated\n")
    rabbit.api("DELETE", f"users/{old.username}")
    worker.wait_event("not connected to the broker")
    worker.wait_event("connected to the broker", times=2)
    vhost.publish(bodies(1))
    vhost.take("feedback.results", 1)
    assert "rotated" not in worker.log.read_text()


def test_a_vhost_that_is_missing_is_reported_until_it_is_there(
    rabbit: Rabbit, start_worker: StartWorker
) -> None:
    name = f"late{uuid.uuid4().hex[:8]}"
    worker = start_worker(rabbit.uri(name))
    said = worker.wait_event("not connected to the broker")
    assert "vhost" in said["why"]
    assert name in said["why"]
    assert worker.get("/healthz")[0] == 200
    assert worker.get("/readyz")[0] == 503
    rabbit.add_vhost(name)
    worker.ready()
    assert worker.metric("selfheal_worker_broker_disconnects_total") >= 1


def test_a_port_that_speaks_another_protocol_is_reported(
    rabbit: Rabbit, start_worker: StartWorker
) -> None:
    worker = start_worker(f"amqp://127.0.0.1:{rabbit.management}/")
    worker.wait_event("not connected to the broker")
    assert worker.get("/healthz")[0] == 200


def test_one_of_several_addresses_is_enough(
    rabbit: Rabbit, vhost: Vhost, start_worker: StartWorker
) -> None:
    worker = start_worker(f"amqp://127.0.0.1:9/,{vhost.uri}").ready()
    vhost.publish(bodies(1))
    vhost.take("feedback.results", 1)
    assert worker.get("/readyz")[0] == 200
    done = command(environment(f"amqp://127.0.0.1:9/,{vhost.uri}"), "results", "--timeout", "0.1")
    assert done.returncode == 0, done.stderr


def test_the_next_address_is_taken_when_one_goes_away(
    rabbit: Rabbit, vhost: Vhost, start_worker: StartWorker, hang: Path
) -> None:
    proxies = [Proxy(rabbit.amqp) for _ in range(2)]
    try:
        uris = (f"amqp://{USER}:{PASSWORD}@127.0.0.1:{one.port}/{vhost.name}" for one in proxies)
        worker = start_worker(",".join(uris), FAULT_MODEL_HANG_FILE=hang).ready()
        vhost.publish(bodies(40))
        worker.wait_in_flight(8)
        first, second = sorted(proxies, key=lambda one: -one.accepted)
        first.refuse()
        first.cut()
        hang.unlink()
        assert set(collect(vhost, 40)) == {f"m{n}" for n in range(40)}
        assert second.accepted
        worker.ready()
    finally:
        for one in proxies:
            one.close()


@each_line
def test_a_results_queue_that_is_missing_keeps_the_messages(
    vhost: Vhost, start_worker: StartWorker, hang: Path
) -> None:
    worker = start_worker(vhost.uri, FAULT_MODEL_HANG_FILE=hang).ready()
    vhost.publish(bodies(3))
    worker.wait_in_flight(3)
    with vhost.channel() as channel:
        channel.queue_delete("feedback.results")
    hang.unlink()
    said = worker.wait_event("circuit breaker", breaker="results", state="open")
    assert said["why"] == "feedback.results: it was returned as unroutable"
    worker.wait_event("circuit breaker", breaker="results", state="closed")
    assert ids(vhost.take("feedback.results", 3)) == ["m0", "m1", "m2"]
    vhost.wait_count("feedback", 0)
    answered = 'selfheal_worker_messages_total{outcome="answered"}'
    worker.until("not all count as answered", lambda: worker.metric(answered) == 3)


@each_line
def test_a_full_results_queue_stops_the_work_until_there_is_room(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    worker = start_worker(vhost.uri, RESULTS_MAX_LENGTH=5, CONCURRENCY=2, LOG_LEVEL="debug").ready()
    vhost.publish(bodies(40))
    worker.wait_event("circuit breaker", breaker="results", state="open")
    code, why = worker.get("/readyz")
    assert code == 503
    assert "results" in why
    # A queue that is full can be declared: that alone must not bring more messages each time.
    worker.wait_event("results are still not taken", times=3)
    assert worker.progress()["in_flight"] <= 2
    results = [line for line in worker.lines() if line.get("breaker") == "results"]
    assert [line["state"] for line in results] == ["open"]
    seen = collect(vhost, 40)
    assert set(seen.values()) == {1}
    assert vhost.count("feedback.dead-letters") == 0


@each_line
def test_a_deleted_work_queue_is_declared_again(vhost: Vhost, start_worker: StartWorker) -> None:
    worker = start_worker(vhost.uri).ready()
    with vhost.channel() as channel:
        channel.queue_delete("feedback")
    worker.wait_event("not connected to the broker", why="cancelled")
    worker.wait_event("connected to the broker", times=2)
    worker.ready()
    vhost.publish(bodies(1))
    vhost.take("feedback.results", 1)


def test_sigterm_while_results_cannot_be_published(vhost: Vhost, start_worker: StartWorker) -> None:
    worker = start_worker(vhost.uri, RESULTS_MAX_LENGTH=1, CONCURRENCY=2, SHUTDOWN_GRACE=1).ready()
    vhost.publish(bodies(10))
    worker.wait_event("circuit breaker", breaker="results", state="open")
    assert worker.terminate() == 0
    answered, left = vhost.take("feedback.results"), vhost.take("feedback")
    assert {json.loads(body)["id"] for body, _ in answered + left} == {f"m{n}" for n in range(10)}


@each_own_line
def test_a_blocked_connection_pauses_publishing_and_recovers(
    own_rabbit: Rabbit, start_worker: StartWorker, hang: Path
) -> None:
    vhost = own_rabbit.add_vhost("v")
    # The broker blocks a connection when it publishes: the results must come after the alarm.
    worker = start_worker(vhost.uri, FAULT_MODEL_HANG_FILE=hang, MODEL_DEADLINE=600).ready()
    vhost.publish(bodies(16))
    own_rabbit.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    hang.unlink()
    worker.until("never blocked", lambda: worker.metric("selfheal_worker_broker_blocked") == 1)
    assert "takes no publishes" in worker.get("/readyz")[1]
    assert worker.get("/healthz")[0] == 200
    own_rabbit.ctl("set_vm_memory_high_watermark", "0.6")
    assert sum(collect(vhost, 16).values()) == 16
    worker.until("still blocked", lambda: worker.metric("selfheal_worker_broker_blocked") == 0)
    worker.ready()


def test_a_channel_closed_by_the_consumer_timeout(
    tmp_path_factory: pytest.TempPathFactory,
    unavailable: Callable[[str], None],
    start_worker: StartWorker,
    hang: Path,
) -> None:
    """The broker takes a message back that was held for too long: the worker lives on."""
    if why := available():
        unavailable(why)
    broker = Rabbit(tmp_path_factory.mktemp("timeout"), extra="consumer_timeout = 10000\n")
    try:
        broker.start()
        broker.ctl("eval", "application:set_env(rabbit, channel_tick_interval, 1000).")
        vhost = broker.add_vhost("v")
        env = {"FAULT_MODEL_HANG_FILE": hang, "CONCURRENCY": 1, "SHUTDOWN_GRACE": 1}
        # A handler past its deadline would give the message back before the broker takes it.
        worker = start_worker(vhost.uri, **env, MODEL_DEADLINE=600).ready()
        vhost.publish(bodies(1))
        worker.wait_event("not connected to the broker", why="timeout")
        assert worker.terminate() == 0
        start_worker(vhost.uri).ready()
        assert ids(vhost.take("feedback.results", 1)) == ["m0"]
    finally:
        broker.kill()
