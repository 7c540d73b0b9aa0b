"""A user who may do little: what is enough, and what is said when it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.broker.release_lines import each_line
from tests.broker.test_delivery import bodies, ids
from tests.support.worker_process import command, environment

if TYPE_CHECKING:
    from tests.broker.conftest import StartWorker
    from tests.support.rabbit import Vhost

WRITE = r"^amq\.default$"
READ = "^feedback$"


@each_line
def test_read_and_write_are_enough_for_queues_that_are_there(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    assert command(environment(vhost.uri), "topology").returncode == 0
    worker = start_worker(vhost.uri_of_user(write=WRITE, read=READ)).ready()
    vhost.publish([*bodies(3), b"poison"])
    assert ids(vhost.take("feedback.results", 3)) == ["m0", "m1", "m2"]
    vhost.take("feedback.dead-letters", 1)
    assert worker.terminate() == 0
    assert vhost.count("feedback") == 0


@each_line
def test_a_queue_that_is_missing_is_named_until_somebody_declares_it(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    worker = start_worker(vhost.uri_of_user(write=WRITE, read=READ))
    said = worker.wait_event("not connected to the broker")
    assert "'feedback.dead-letters' does not exist" in said["why"]
    assert "selfheal-worker topology" in said["why"]
    assert said["level"] == "error"
    assert worker.get("/readyz")[0] == 503
    assert worker.get("/healthz")[0] == 200
    assert command(environment(vhost.uri), "topology").returncode == 0
    worker.ready()


@each_line
def test_without_the_right_to_publish_no_message_is_taken(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    assert command(environment(vhost.uri), "topology").returncode == 0
    vhost.publish(bodies(1))
    worker = start_worker(vhost.uri_of_user(read=READ))
    said = worker.wait_event("not connected to the broker", why="access to exchange")
    assert "write on the default exchange" in said["why"]
    assert said["level"] == "error"
    assert worker.get("/readyz")[0] == 503
    assert worker.terminate() == 0
    with vhost.channel() as channel:
        method, properties, _ = channel.basic_get("feedback")
        assert not method.redelivered
        assert not (properties.headers or {}).get("x-delivery-count")


def test_without_the_right_to_read_it_is_reported(vhost: Vhost, start_worker: StartWorker) -> None:
    assert command(environment(vhost.uri), "topology").returncode == 0
    worker = start_worker(vhost.uri_of_user(write=WRITE))
    said = worker.wait_event("not connected to the broker", why="access to queue")
    assert "read on the work queue" in said["why"]
    assert said["level"] == "error"
    assert worker.get("/healthz")[0] == 200


def test_the_topology_command_reports_a_missing_right_to_declare(vhost: Vhost) -> None:
    env = environment(vhost.uri_of_user(write=".*", read=".*"))
    done = command(env, "topology", "--timeout", "0.1")
    assert done.returncode == 1
    assert "configure, write and read" in done.stderr
    assert "ACCESS_REFUSED" in done.stderr
