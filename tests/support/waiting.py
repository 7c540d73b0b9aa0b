"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
#: Only a hang takes longer.
PATIENCE = 60.0


def until(what: str, look: Callable[[], T], seconds: float = PATIENCE) -> T:
    """What `look` returns as soon as it is true; it is called ever more rarely, up to 20 times a
    second.

    Raises AssertionError, with `what` and what was seen last, when it never is.
    """
    ends, pause = time.monotonic() + seconds, 0.005
    while not (found := look()):
        if time.monotonic() > ends:
            raise AssertionError(f"not within {seconds:g} s: {what} (last seen: {found!r})")
        time.sleep(pause)
        pause = min(1.5 * pause, 0.05)
    return found
