"""How far the end of a worker has come."""

from __future__ import annotations

from selfheal_worker.shutdown import REQUEUE_PATIENCE, Shutdown, ShutdownPhase


def test_a_worker_runs_until_the_loop_has_seen_a_request() -> None:
    shutdown = Shutdown(grace=30)
    assert not shutdown.requested
    shutdown.request()
    assert shutdown.requested
    assert shutdown.phase is ShutdownPhase.RUNNING
    assert shutdown.advance(1000, done=True) is ShutdownPhase.RUNNING
    assert shutdown.begin(1000)
    assert not shutdown.begin(1001)


def test_the_grace_period_counts_from_the_first_request() -> None:
    shutdown = Shutdown(grace=30)
    shutdown.request()
    shutdown.begin(1000)
    shutdown.begin(1010)
    assert shutdown.advance(1029, done=False) is ShutdownPhase.FINISHING
    assert shutdown.advance(1030, done=False) is ShutdownPhase.REQUEUEING
    assert shutdown.advance(1029 + REQUEUE_PATIENCE, done=False) is ShutdownPhase.REQUEUEING
    assert shutdown.advance(1030 + REQUEUE_PATIENCE, done=False) is ShutdownPhase.CLOSING


def test_a_second_request_ends_the_grace_period() -> None:
    shutdown = Shutdown(grace=30)
    shutdown.request()
    shutdown.begin(1000)
    shutdown.request()
    shutdown.begin(1001)
    assert shutdown.advance(1001, done=False) is ShutdownPhase.REQUEUEING
    shutdown.begin(1010)  # and is not put off again
    assert shutdown.advance(1010, done=False) is ShutdownPhase.CLOSING


def test_it_ends_as_soon_as_nothing_is_left() -> None:
    shutdown = Shutdown(grace=30)
    shutdown.request()
    shutdown.begin(1000)
    assert shutdown.advance(1001, done=True) is ShutdownPhase.CLOSING
    assert shutdown.advance(1002, done=False) is ShutdownPhase.CLOSING
