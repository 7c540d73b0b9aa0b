"""A stand-in of the remediator in its own image: a thread fails and is restarted, again and again.

Only a bug makes a thread of the remediator raise what nothing expects: failures of requests and
unreadable files are handled. So this process has the bug, and uses the remediator's own
supervision, counter and HTTP server. It serves only that counter, because a second set of the
remediator's metrics would change what its other alerts see.
"""

from __future__ import annotations

import os
import threading

from selfheal_remediator.health import serve
from selfheal_remediator.metrics import Metrics
from selfheal_remediator.threads import supervision


def _fails() -> None:
    raise RuntimeError("provoked")


def main() -> None:
    """Never ends."""
    metrics = Metrics()

    def exposition() -> bytes:
        lines = metrics.render().splitlines(keepends=True)
        return b"".join(line for line in lines if b"_thread_failures" in line)

    serve(int(os.environ["HTTP_PORT"]), str, str, exposition)
    stop = threading.Event()
    supervision.start("provoked", _fails, stop)
    stop.wait()


main()
