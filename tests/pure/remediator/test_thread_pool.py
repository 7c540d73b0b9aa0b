"""Jobs beside the main thread: how many at a time."""

import queue
import threading

from selfheal_remediator.threads.pool import Purpose, Workers


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


def test_jobs_without_a_key_do_not_wait_behind_a_key_that_may_have_no_more() -> None:
    workers, gate = Workers(4), threading.Event()
    begun: queue.SimpleQueue[str] = queue.SimpleQueue()

    def submit(name: str, key: str) -> None:
        def job() -> None:
            begun.put(name)
            gate.wait()

        workers.submit(job, Purpose.LOOKUPS, key)

    for name in ("read 1", "read 2"):
        submit(name, "")
    submit("status 1", "statuses")
    assert {begun.get(timeout=30) for _ in range(3)} == {"read 1", "read 2", "status 1"}
    submit("status 2", "statuses")
    submit("read 3", "")
    assert begun.get(timeout=30) == "read 3"
    gate.set()
    assert begun.get(timeout=30) == "status 2"
