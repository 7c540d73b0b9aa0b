"""Jobs beside the main thread: how many at a time."""

import queue
import threading

from selfheal_remediator.threads.pool import Workers


def test_as_many_at_a_time_as_allowed_and_no_more() -> None:
    workers, gate = Workers(3), threading.Event()
    begun: queue.SimpleQueue[int] = queue.SimpleQueue()
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()

    def job() -> None:
        begun.put(threading.get_ident())
        gate.wait()
        ended.put(threading.get_ident())

    for _ in range(12):
        workers.submit(job)
    first = {begun.get(timeout=30) for _ in range(3)}
    gate.set()
    assert len(first) == 3
    assert {ended.get(timeout=30) for _ in range(12)} == first


def test_a_job_that_fails_takes_no_place() -> None:
    workers = Workers(1)
    done: queue.SimpleQueue[str] = queue.SimpleQueue()

    def fails() -> None:
        raise LookupError

    workers.submit(fails)
    workers.submit(lambda: done.put("the next"))
    assert done.get(timeout=30) == "the next"
