"""One term of leadership: pod healing has new parts in each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from selfheal_remediator.threads.pool import Post


class Term:
    """Passes jobs to the main thread; what comes back after the term's end is not heard."""

    def __init__(self, post: Post) -> None:
        self._post, self._over = post, False

    def end(self) -> None:
        """On the main thread: nothing more is heard of it."""
        self._over = True

    def post(self, job: Callable[[], None]) -> None:
        """In any thread: have the main thread run the job, if the term is not over then."""
        self._post(partial(self._run, job))

    def _run(self, job: Callable[[], None]) -> None:
        if not self._over:
            job()
