"""No thread ends unnoticed: its exception is logged and counted, and the thread is restarted.

An API client can raise more than the failures that it documents (a token file that is being
rewritten, a broken proxy configuration, an error of its own). Two rules apply everywhere:
a long-running thread is restarted with back-off (`start`), and a request's unexpected exception
is turned into an ApiFailure (`expected`), so that whoever waits for its outcome gets it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from random import Random
from weakref import WeakKeyDictionary

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.threads.runtime import REAL, Event, Runtime

log = logging.getLogger(__name__)

#: Seconds at most before the first and before a later restart of a thread.
FIRST_RESTART = 0.4
LONGEST_RESTART = 10.0

#: Of each process; a simulation has several. Never held while anything is waited for.
_failures: WeakKeyDictionary[Runtime, Counter[str]] = WeakKeyDictionary()
_lock = REAL.lock()


class Unexpected(ApiFailure):
    """An exception that no API server's answer explains; whether a request was sent is unknown."""

    def __init__(self, what: str, error: BaseException) -> None:
        super().__init__(0, type(error).__name__, f"{what}: {error}")


def failed(thread: str, error: BaseException, then: str, *, runtime: Runtime = REAL) -> None:
    """Log an exception with its traceback and count it for the thread."""
    with _lock:
        _failures.setdefault(runtime, Counter())[thread] += 1
    log.error("thread %s: unexpected %r: %s", thread, error, then, exc_info=error)


def failures(runtime: Runtime = REAL) -> Mapping[str, int]:
    """Unexpected exceptions since the process began, by thread."""
    with _lock:
        return dict(_failures.get(runtime, {}))


@contextmanager
def expected(
    thread: str, what: str, *also: type[Exception], runtime: Runtime = REAL
) -> Iterator[None]:
    """Any exception of the block that is neither an ApiFailure nor of `also` becomes Unexpected.

    Also SystemExit and the like: whoever waits for the outcome would wait for ever. Only for
    blocks that run in threads of their own, where nothing else comes of them.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, (ApiFailure, *also)):
            raise
        failed(thread, error, f"{what} counts as failed and is tried again", runtime=runtime)
        raise Unexpected(what, error) from error


def backoff(times: int, random: Random) -> float:
    """Seconds before the next attempt after so many failures in a row (1, 2, ...), jittered."""
    delay = delay_after(times, first=FIRST_RESTART, longest=LONGEST_RESTART)
    return delay * random.uniform(0.5, 1.0)


def start(
    thread: str,
    target: Callable[[], None],
    stop: Event,
    *,
    name: str = "",
    runtime: Runtime = REAL,
) -> None:
    """Run the target in a daemon thread, and again whenever it raises, until `stop` is set.

    thread: a bounded label for logs and metrics; name: the thread's own name, where it differs.
    """
    runtime.start(name or thread, partial(_supervise, thread, target, stop, runtime))


def _supervise(thread: str, target: Callable[[], None], stop: Event, runtime: Runtime) -> None:
    times = 0
    while not stop.is_set():
        try:
            target()
            return
        except BaseException as error:  # noqa: BLE001
            # Also SystemExit and the like: they would end this thread only, and silently.
            times += 1
            failed(thread, error, "the thread is restarted", runtime=runtime)
        stop.wait(backoff(times, runtime.random))
