"""Bodies of any size that the broker takes, and messages that end workers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from selfheal_worker import dead_letters
from tests.broker.release_lines import each_line
from tests.broker.test_broker_faults import collect
from tests.broker.test_delivery import bodies

if TYPE_CHECKING:
    from tests.broker.conftest import StartWorker
    from tests.support.rabbit import Rabbit, Vhost
    from tests.support.worker_process import WorkerProcess

MIB = 1024 * 1024
LARGEST = 16 * MIB  # of RabbitMQ 4, unless it is set otherwise
ALLOWED = 128 * MIB  # what it can be set to, and what older ones take


def _peak(worker: WorkerProcess) -> int:
    """The most memory that the process has ever had, KiB."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found
    return int(found[1])


def _nested(size: int) -> bytes:
    head, tail = b'{"text":"hi","metadata":[[]', b"]}"
    return head + b",[]" * ((size - len(head) - len(tail)) // 3) + tail


@each_line
def test_a_body_above_the_limit_is_dead_lettered_whole_in_memory_of_any_message(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    worker = start_worker(vhost.uri).ready()
    vhost.publish(bodies(50))
    assert len(collect(vhost, 50)) == 50
    normal = _peak(worker)
    large = [_nested(LARGEST), b"x" * LARGEST, _nested(LARGEST), _nested(MIB)]
    for one in large:
        vhost.publish([one])
    vhost.wait_count("feedback.dead-letters", len(large))
    assert _peak(worker) <= 1.3 * normal
    letters = vhost.take("feedback.dead-letters", len(large))
    assert sorted(map(len, large)) == sorted(len(body) for body, _ in letters)
    assert {body for body, _ in letters} == set(large)
    assert {p.headers[dead_letters.REASON] for _, p in letters} == {"body_too_large"}
    assert {p.headers["x-selfheal-attempts"] for _, p in letters} == {1}
    vhost.publish(bodies(5))
    assert len(collect(vhost, 5)) == 5
    assert not [line for line in worker.lines() if "lost" in line["event"]]


def test_the_largest_body_that_a_broker_can_be_told_to_take_is_dead_lettered(
    own_rabbit: Rabbit, start_worker: StartWorker
) -> None:
    own_rabbit.stop()
    conf = own_rabbit.folder / "conf.d" / "20.conf"
    conf.write_text(f"max_message_size = {ALLOWED}\n")
    own_rabbit.start()
    vhost = own_rabbit.add_vhost("large")
    worker = start_worker(vhost.uri).ready()
    vhost.publish(bodies(50))
    assert len(collect(vhost, 50)) == 50
    normal = _peak(worker)
    large = [_nested(ALLOWED), b"x" * ALLOWED]
    for one in large:
        vhost.publish([one])
    vhost.wait_count("feedback.dead-letters", len(large))
    assert _peak(worker) <= 1.3 * normal
    letters = vhost.take("feedback.dead-letters", len(large))
    assert sorted(map(len, large)) == sorted(len(body) for body, _ in letters)
    assert {p.headers[dead_letters.REASON] for _, p in letters} == {"body_too_large"}
    vhost.publish(bodies(5))
    assert len(collect(vhost, 5)) == 5
    assert not [line for line in worker.lines() if "lost" in line["event"]]


@each_line
def test_large_bodies_within_the_limit_are_answered_with_what_came_with_them(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    worker = start_worker(vhost.uri).ready()
    vhost.publish(bodies(50))
    assert len(collect(vhost, 50)) == 50
    normal = _peak(worker)
    sent = _nested(512 * 1024)
    vhost.publish([sent] * 8)
    results = [json.loads(body) for body, _ in vhost.take("feedback.results", 8)]
    assert all(one["metadata"] == json.loads(sent)["metadata"] for one in results)
    assert _peak(worker) <= 1.6 * normal


@each_line
def test_a_message_that_was_in_flight_at_two_crashes_is_tried_alone(
    vhost: Vhost, start_worker: StartWorker, tmp_path: Path
) -> None:
    hang = tmp_path / "hang"
    hang.touch()
    environment = {"CONCURRENCY": 4, "FAULT_MODEL_HANG_FILE": hang}
    first = start_worker(vhost.uri, **environment).ready()
    vhost.publish(bodies(1))
    for crashed in (first, start_worker(vhost.uri, **environment)):
        crashed.wait_in_flight(1)
        crashed.kill()
    vhost.publish(bodies(20, first=1))
    worker = start_worker(vhost.uri, **environment)
    worker.wait_event("message was redelivered again and again, and is tried alone")
    worker.wait_in_flight(1)
    assert len(vhost.take("feedback.results")) == 0
    hang.unlink()
    assert set(collect(vhost, 21).values()) == {1}
    assert vhost.count("feedback.dead-letters") == 0
