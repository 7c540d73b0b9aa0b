"""Whether a refusal is about the text or about every text.

A server that was reconfigured, or given a setting that it does not take, refuses all texts in the
same words as one that is too long. Before a refused text may become a dead letter, the model must
have taken another text since: an answer to a neighbour, or to a text of ours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from worker.model import (
    BadOutputError,
    ContentFilteredError,
    ModelUnavailableError,
    RefusedTextError,
    TextTooLongError,
    TransientError,
)

#: Seconds for which an answer also vouches for refusals that name their cause (too long, filtered).
NAMED_CAUSE = 5.0


class Refusals:
    """One model's. All methods may be called by many threads at once; times are monotonic."""

    def __init__(self) -> None:
        self._checking = threading.Lock()
        #: When the last call began that the model answered.
        self._taken_at = float("-inf")

    def taken(self, begun: float) -> None:
        """The model answered a call that began then."""
        self._taken_at = max(self._taken_at, begun)

    def confirm(
        self, error: RefusedTextError, begun: float, deadline: float, probe: Callable[[], object]
    ) -> None:
        """Return if the refusal of a call that began at `begun` is about its text.

        probe sends a text of ours; it is called only if no answer shows already that the model
        takes texts, and by one thread at a time. Raises ModelUnavailableError if the model refuses
        that as well, TransientError if there is no time to find out, and what else probe raises.
        """
        named = isinstance(error, TextTooLongError | ContentFilteredError)
        needed = begun - NAMED_CAUSE if named else begun
        if self._taken_at >= needed:
            return
        if not self._checking.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TransientError("the model refused a text, and there was no time to send another")
        try:
            if self._taken_at >= needed:
                return
            asked = time.monotonic()
            try:
                probe()
            except BadOutputError:
                pass  # it took the text, whatever it made of it
            except RefusedTextError as own:
                raise ModelUnavailableError(
                    f"the model refuses every text, ours too: {own}; check its name and options"
                ) from error
            self.taken(asked)
        finally:
            self._checking.release()
