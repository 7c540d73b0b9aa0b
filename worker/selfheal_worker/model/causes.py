"""The exceptions that led to another. Pure.

Python gives an exception, as its context, what was being handled when it was raised. Where a call
is made while another exception is handled (our own text is sent because a user's was refused), what
the call raises leads on to that other one, which would then be read as the call's own failure.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

#: Of a chain; libraries have two or three.
_MOST = 8


def causes(error: BaseException) -> list[BaseException]:
    """An exception, then those that it was raised from or while handling."""
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and one not in found and len(found) < _MOST:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found


def with_own_causes(call: Callable[..., T], *arguments: Any) -> T:
    """The result of a call; what it raises does not lead on to what the caller is handling."""
    handled = sys.exc_info()[1]
    if handled is None:
        return call(*arguments)
    try:
        return call(*arguments)
    except Exception as error:
        _cut(error, handled)
        raise


def _cut(error: BaseException, handled: BaseException) -> None:
    waiting, known = [error], [handled]
    while waiting:
        one = waiting.pop()
        if one in known:
            continue
        known.append(one)
        if one.__context__ is handled:
            one.__context__ = None
        waiting += [led for led in (one.__cause__, one.__context__) if led is not None]
