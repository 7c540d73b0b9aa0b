"""Whether a refusal is about the text or about every text.

A server that was reconfigured, or given a setting that it does not accept, refuses all texts with
the same message as one that is too long. Before a refused text may be dead-lettered, the model must
have accepted another text since: an answer to another message, or to our test text. A message that
may be retried does not wait for that: by its second refusal others have been answered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selfheal_worker.model.errors import (
    BadOutputError,
    ContentFilteredError,
    ModelUnavailableError,
    RefusedTextError,
    TextTooLongError,
    TransientError,
)
from selfheal_worker.model.provider import UnconfirmedRefusalError
from selfheal_worker.runtime import REAL, Runtime

#: Seconds for which an answer also confirms refusals that name their cause (too long, filtered).
NAMED_CAUSE = 5.0
#: Seconds after an answer in which refusals that name no cause have no text of ours sent, where
#: their messages may come again. A server that refuses all is noticed so much later.
CHECK_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class RefusalHistory:
    """What is known of a message when its text is refused.

    may_retry: it can be tried once more, later. refused_by: its text was refused before, and that
    call ended by then (`time.monotonic()`); None where it was not.
    """

    may_retry: bool = False
    refused_by: float | None = None


#: Of a text that will not come again; of one that will, and was not refused before.
NO_HISTORY = RefusalHistory()
MAY_RETRY = RefusalHistory(may_retry=True)


class Refusals:
    """One model's. All methods may be called by many threads at once; times are monotonic."""

    def __init__(self, clock: Callable[[], float] | None = None, runtime: Runtime = REAL) -> None:
        self._clock = clock or runtime.monotonic
        self._checking = runtime.lock()
        #: When the last call began that the model answered, and when the last answer came.
        self._taken_at = float("-inf")
        self._answered_at = float("-inf")

    def taken(self, begun: float) -> None:
        """The model answered a call that began then."""
        self._taken_at = max(self._taken_at, begun)
        self._answered_at = self._clock()

    def confirm(
        self,
        error: RefusedTextError,
        begun: float,
        deadline: float,
        probe: Callable[[], object],
        history: RefusalHistory = NO_HISTORY,
    ) -> None:
        """Return if the refusal of a call that began at `begun` is about its text.

        probe sends our test text; it is called only if no answer shows already that the model
        accepts texts, and by one thread at a time. Raises ModelUnavailableError if the model
        refuses that as well, TransientError if there is no time to find out,
        UnconfirmedRefusalError if the message may be retried and would wait for the proof, and what
        else probe raises.
        """
        named = isinstance(error, TextTooLongError | ContentFilteredError)
        needed = begun - NAMED_CAUSE if named else begun
        if history.refused_by is not None:
            needed = min(needed, history.refused_by)
        if self._taken_at >= needed:
            return
        later = history.may_retry and not named
        if later and self._answered_lately():
            raise _unconfirmed(error)
        if not self._checking.acquire(timeout=0.0 if later else _left(deadline, self._clock())):
            if later:
                raise _unconfirmed(error)
            raise TransientError(
                "the model refused a text, and there was no time to send a test text"
            )
        try:
            if self._taken_at >= needed:
                return
            if later and self._answered_lately():
                raise _unconfirmed(error)
            self._check(error, probe)
        finally:
            self._checking.release()

    def _answered_lately(self) -> bool:
        return self._clock() - self._answered_at < CHECK_INTERVAL

    def _check(self, error: RefusedTextError, probe: Callable[[], object]) -> None:
        begun = self._clock()
        try:
            probe()
        except BadOutputError:
            pass  # it took the text, whatever it made of it
        except RefusedTextError as own:
            raise ModelUnavailableError(
                f"the model refuses every text, including our test text: {own}; "
                "check its name and options"
            ) from error
        self.taken(begun)


def _left(deadline: float, now: float) -> float:
    return max(0.0, deadline - now)


def _unconfirmed(error: RefusedTextError) -> UnconfirmedRefusalError:
    return UnconfirmedRefusalError(
        f"{error}; it is tried once more, after other texts were answered"
    )
