"""Faults on purpose, for demos and tests: model calls that are slow, or that hang."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from selfheal_worker.model.errors import TransientError
from selfheal_worker.runtime import REAL, Runtime

# How soon a call continues that hung by an injected fault.
_HANG_CHECK = 0.2


def before_calls(
    delay: float, hang_file: Path | None, runtime: Runtime = REAL
) -> Callable[[float], None]:
    """What happens before each model call: it takes delay seconds longer, and while hang_file is
    there it hangs, deadline or not."""

    def before(deadline: float) -> None:
        if delay:
            runtime.sleep(max(0.0, min(delay, deadline - runtime.monotonic())))
            if runtime.monotonic() >= deadline:
                raise TransientError("the model did not answer before the deadline")
        # As a driver or a socket without a time-out would: no deadline ends it.
        while hang_file is not None and hang_file.exists():
            runtime.sleep(_HANG_CHECK)

    return before
