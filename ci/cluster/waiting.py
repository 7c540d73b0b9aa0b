"""Waits for things outside this process, and notices when what is awaited has died."""

import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from ci.cluster import processes
from ci.cluster.errors import ClusterError
from ci.cluster.layout import Layout

_PAUSE_SECONDS = 0.1
_LOG_LINES = 15


def until(
    what: str,
    holds: Callable[[], bool],
    seconds: float,
    explain: Callable[[], str] = lambda: "",
) -> None:
    """Asks `holds` again and again; after `seconds` a ClusterError with `what` and `explain()`."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {seconds:.0f} s\n{explain()}".rstrip())
        time.sleep(_PAUSE_SECONDS)


def until_answers(layout: Layout, part: str, url: str, seconds: float) -> None:
    """Until `url` answers 200; fails at once, with the end of the log, when `part` has ended."""
    context = ssl.create_default_context(cafile=str(layout.certificates / "ca.crt"))

    def answers() -> bool:
        if processes.find(layout, part) is None:
            raise ClusterError(f"{part} has ended; its last words:\n{last_words(layout, part)}")
        return _status(url, context) == 200

    words = f"{part} at {url} is ready"
    until(words, answers, seconds, lambda: last_words(layout, part))


def last_words(layout: Layout, part: str) -> str:
    """The end of a part's log, indented."""
    try:
        lines = (layout.logs / f"{part}.log").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in lines[-_LOG_LINES:])


def _status(url: str, context: ssl.SSLContext) -> int:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(url, timeout=2) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0
