"""Nobody reads the results for days: the answers have nowhere to go, and nothing may be lost."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from selfheal_worker import publishing
from selfheal_worker.config import load
from selfheal_worker.metrics import Metrics
from selfheal_worker.model import registry
from selfheal_worker.task import task_file
from selfheal_worker.worker import Worker
from tests.broker.release_lines import each_line
from tests.broker.test_broker_faults import collect
from tests.broker.test_delivery import bodies
from tests.support.rabbit import PASSWORD, USER
from tests.support.tcp_proxy import Proxy
from tests.support.worker_process import command, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from tests.broker.conftest import StartWorker
    from tests.support.rabbit import Vhost
    from tests.support.worker_process import WorkerProcess


class Witness(Metrics):
    """Says when so many messages were handed back, and how many were in flight after the first."""

    def __init__(self, at_first: int, enough: int) -> None:
        super().__init__()
        self.enough = threading.Event()
        self.worker: Worker | None = None
        self.in_flight_later = 0
        self._requeued = 0
        self._at_first = at_first
        counter = self.messages.settled.labels("requeued")
        count = counter.inc

        def inc(amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
            count(amount, exemplar)
            self._requeued += 1
            if self._requeued >= enough:
                self.enough.set()

        counter.inc = inc  # type: ignore[method-assign]

    def look(self, _: object) -> None:
        """At each call of the model."""
        if self.worker is not None and self._requeued >= self._at_first:
            now = self.worker.status().in_flight
            self.in_flight_later = max(self.in_flight_later, now)


@contextmanager
def running(vhost: Vhost, witness: Witness) -> Iterator[Worker]:
    """A worker in this process, until the end of the block."""
    settings = load(
        {"AMQP_URI": vhost.uri, "RESULTS_MAX_LENGTH": "5", "CONCURRENCY": "4", "RETRY_DELAYS": "1"}
    )
    chain = registry.chain(settings, task_file.load(None), observe=witness.look)
    worker = witness.worker = Worker(settings, chain, witness)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(60)
    assert not thread.is_alive()


@each_line
def test_answers_that_nobody_takes_are_given_up_before_the_broker_takes_their_messages_back(
    vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker would count that as a delivery. Then one message at a time shows how it is."""
    monkeypatch.setattr(publishing, "PARKED_LONGEST", 1.0)
    assert command(environment(vhost.uri, RESULTS_MAX_LENGTH=5, RETRY_DELAYS=1), "topology")
    vhost.publish(bodies(40))
    witness = Witness(at_first=4, enough=4 + 1)
    with running(vhost, witness) as worker:
        assert witness.enough.wait(60)
        assert worker.status().breakers["results"] != "closed"
        assert witness.in_flight_later == 1
        assert set(collect(vhost, 40).values()) == {1}
    assert vhost.count("feedback.dead-letters") == 0
    assert vhost.count("feedback") == 0


@each_line
def test_a_lost_connection_does_not_open_the_way_to_a_full_queue(
    vhost: Vhost, start_worker: StartWorker
) -> None:
    proxy = Proxy(vhost.rabbit.amqp)
    try:
        uri = f"amqp://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}/{vhost.name}"
        worker = start_worker(uri, RESULTS_MAX_LENGTH=5, CONCURRENCY=4).ready()
        vhost.publish(bodies(40))
        worker.wait_event("circuit breaker", breaker="results", state="open")
        worker.wait_event("results are still not taken")
        proxy.cut()
        worker.wait_event("connected to the broker", times=2)
        worker.wait_in_flight(1)
        worker.wait_event("results are still not taken", why="rejected")
        assert breaker_states(worker) == ["open"]
        assert set(collect(vhost, 40).values()) == {1}
        assert vhost.count("feedback.dead-letters") == 0
    finally:
        proxy.close()


def breaker_states(worker: WorkerProcess) -> list[str]:
    return [line["state"] for line in worker.lines() if line.get("breaker") == "results"]
