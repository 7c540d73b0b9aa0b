"""Why no model of a chain answered a text, and whether one that was away might have. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from selfheal_worker.model.errors import ModelUnavailableError, RefusedTextError
from selfheal_worker.model.failure_effects import effect_of
from selfheal_worker.model.limits import LimitedError
from selfheal_worker.model.provider import UnconfirmedRefusalError

_MARK = "_selfheal_awaited"
_NOT_CALLED = (LimitedError, ModelUnavailableError)


class Awaited(Enum):
    """Which model was unavailable when the others failed.

    ACTIVE: the message waits until it is available: that is an outage, which is reported.
    FALLBACK: nobody may notice its outage, so the message only waits within its attempts.
    """

    ACTIVE = "the active model"
    FALLBACK = "a fallback"


def combined(errors: Sequence[Exception | None]) -> Exception:
    """The error that represents those of all models, in their order; None: it was not called.

    An error that may be this message's fault takes precedence over a model that was not called,
    and that over one that is unavailable. `awaited` of the result is the model still to be called.
    """
    called = [error for error in errors if error is not None]
    if not called:
        return ModelUnavailableError("no model is ready")
    failed = [e for e in called if not isinstance(e, (*_NOT_CALLED, RefusedTextError))]
    refused = [e for e in called if isinstance(e, RefusedTextError)]
    unsure = [e for e in refused if isinstance(e, UnconfirmedRefusalError)]
    limited = [e for e in called if isinstance(e, LimitedError)]
    chosen = [*failed, *unsure, *refused, *limited, called[-1]][0]
    away = [error is None or not effect_of(error).counted for error in errors]
    mark = Awaited.ACTIVE if away[0] else Awaited.FALLBACK if any(away) else None
    # A client library may raise one and the same object again: the mark is always set again.
    setattr(chosen, _MARK, mark)
    return chosen


def awaited(error: BaseException) -> Awaited | None:
    """The model that was unavailable when the others failed; None if all were called."""
    found = getattr(error, _MARK, None)
    return found if isinstance(found, Awaited) else None
