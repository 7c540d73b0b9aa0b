"""The connections of a simulated process: what urllib3's PoolManager is in production.

Each request is a scheduling point before and after it takes effect; the server answers in one
step, as etcd orders all writes. Answers are urllib3's own, so that its checks of their length hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.exceptions import NewConnectionError, ProtocolError, ReadTimeoutError

from tests.simulation.cluster.messages import Answer, Request, Response, Server, Stream
from tests.simulation.process import Process
from tests.simulation.remediator.wire import Disturb, Fault, Trouble, undisturbed

if TYPE_CHECKING:
    from tests.simulation.scheduler import Thread

#: Seconds from a client to its server, at least and at most.
LATENCY = (0.0005, 0.01)
_URL = "http://api"


class SimulatedPool:
    """See the module. disturb: what goes wrong with each request."""

    def __init__(self, process: Process, server: Server, disturb: Disturb = undisturbed) -> None:
        self._process, self._server, self.disturb = process, server, disturb

    def request(
        self,
        method: str,
        url: str,
        body: str | None = None,
        *,
        headers: dict[str, str],
        timeout: urllib3.Timeout,
        retries: bool,
        redirect: bool,
        preload_content: bool,
    ) -> urllib3.BaseHTTPResponse:
        """Send it and wait for the answer. Raises urllib3's HTTPError."""
        assert not retries, "the program decides itself what is sent again"
        assert not redirect
        content = None if body is None else body.encode()
        request = Request.to(method, url, headers=headers, body=content, process=self._process.name)
        trouble = self.disturb(request)
        if trouble.fault is not Fault.NONE:
            self._record(f"{method} {request.path}: {trouble.fault.value}")
        read_timeout = timeout.read_timeout
        seconds = read_timeout if isinstance(read_timeout, float | int) else 60.0
        if request.watches:
            return self._watch(request, trouble, seconds)
        answer = self._answered(request, trouble, seconds)
        return _response(method, url, answer, short=trouble.fault is Fault.TRUNCATED)

    def _record(self, what: str) -> None:
        self._process.simulation.record(self._process.name, what)

    def _travel(self) -> None:
        """One way over the network."""
        simulation = self._process.simulation
        shortest, longest = LATENCY
        self._process.sleep(shortest + (longest - shortest) * simulation.random.random())

    # -- one answer -------------------------------------------------------------------------

    def _answered(self, request: Request, trouble: Trouble, timeout: float) -> Response:
        self._travel()
        refusal = self._before(request, trouble, timeout)
        if refusal is not None:
            self._travel()
            return refusal
        return self._after(self._handle(request), trouble, timeout)

    def _before(self, request: Request, trouble: Trouble, timeout: float) -> Response | None:
        """What happens to a request that does not take effect now; None = it does."""
        match trouble.fault:
            case Fault.REFUSED:
                raise NewConnectionError(_NO_CONNECTION, "connection refused")
            case Fault.LOST_BEFORE:
                raise _reset()
            case Fault.SLOW:
                self._wait(trouble.seconds, timeout)
            case Fault.LATE:
                # It is in a proxy's or the server's queue: nobody can call it back.
                self._process.simulation.after(
                    max(timeout, trouble.seconds), lambda: self._handle_late(request)
                )
                self._wait(timeout, timeout)
        return _REFUSALS.get(trouble.fault)

    def _after(self, answer: Response, trouble: Trouble, timeout: float) -> Response:
        """What becomes of the answer."""
        match trouble.fault:
            case Fault.LOST_AFTER:
                self._wait(trouble.seconds, timeout)
                raise _reset()
            case Fault.NOT_JSON:
                answer = Response(
                    200, {"Content-Type": "text/html"}, b"<html>please sign in</html>"
                )
            case Fault.INTERNAL_AFTER:
                answer = _REFUSALS[Fault.INTERNAL]
        self._travel()
        return answer

    def _handle(self, request: Request) -> Response:
        answer = self._server.handle(request)
        assert isinstance(answer, Response), request.path
        return answer

    def _handle_late(self, request: Request) -> None:
        self._record(f"{request.method} {request.path}: takes effect now")
        self._server.handle(request)

    def _wait(self, seconds: float, timeout: float) -> None:
        """Raises ReadTimeoutError where that takes too long."""
        self._process.sleep(min(seconds, timeout))
        if seconds >= timeout:
            raise _timed_out(timeout)

    # -- watches ----------------------------------------------------------------------------

    def _watch(
        self, request: Request, trouble: Trouble, silence: float
    ) -> urllib3.BaseHTTPResponse:
        self._travel()
        fault = trouble.fault
        if fault is Fault.REFUSED:
            raise NewConnectionError(_NO_CONNECTION, "connection refused")
        if fault in _REFUSALS:
            self._travel()
            return _response("GET", _URL, _REFUSALS[fault], preload=False)
        answer: Answer = self._server.handle(request)
        self._travel()
        if isinstance(answer, Response):
            return _response("GET", _URL, answer, preload=False)
        return WatchResponse(self._process, answer, silence, trouble)


class WatchResponse(urllib3.BaseHTTPResponse):
    """The body of a watch, which comes bit by bit. silence: seconds until it counts as dead."""

    def __init__(self, process: Process, stream: Stream, silence: float, trouble: Trouble) -> None:
        super().__init__(
            headers=dict(stream.headers),
            status=stream.status,
            version=11,
            version_string="HTTP/1.1",
            reason="OK",
            decode_content=True,
            request_url=_URL,
        )
        self._process, self._stream, self._silence = process, stream, silence
        self._mute = trouble.fault is Fault.SILENT
        self._shut = False
        self._waiting: list[Thread] = []
        stream.subscribe(self._news)
        if trouble.fault is Fault.CUT:
            process.simulation.after(trouble.seconds, self._cut)

    def stream(
        self, amt: int | None = 2**16, decode_content: bool | None = None
    ) -> Iterator[bytes]:
        """What has come, as it comes. Raises urllib3's HTTPError."""
        simulation = self._process.simulation
        while True:
            chunk = None if self._mute else self._stream.next_chunk()
            if self._shut:
                return
            if chunk is not None:
                yield self._travelled(chunk)
                continue
            if self._stream.broken:
                raise _reset()
            if self._stream.ended and not self._mute:
                return
            if not simulation.wait(self._waiting, self._silence, "wait for the watch"):
                raise _timed_out(self._silence)

    def _travelled(self, chunk: bytes) -> bytes:
        shortest, longest = LATENCY
        self._process.sleep(shortest + (longest - shortest) * self._process.random.random())
        return chunk

    def _news(self) -> None:
        """Not a scheduling point: it is called while the server answers another request."""
        if self._waiting and not self._mute:
            self._process.simulation.wake(self._waiting, self._waiting[0])

    def _cut(self) -> None:
        if not self._stream.ended:
            self._stream.close()
        self._news()

    def shutdown(self) -> None:
        """End it from another thread."""
        self._shut = True
        if self._waiting:
            self._process.simulation.wake(self._waiting, self._waiting[0])

    def close(self) -> None:
        """The client hangs up."""
        if not self._stream.ended:
            self._stream.close()

    def release_conn(self) -> None:
        """Nothing is kept open."""


class _NoConnection:
    """What urllib3's errors show of a connection."""

    host, port = "api", 80

    def __repr__(self) -> str:
        return "<connection to the API server>"


_NO_CONNECTION: Any = _NoConnection()
_NO_POOL: Any = _NO_CONNECTION


def _reset() -> ProtocolError:
    return ProtocolError("Connection aborted.", ConnectionResetError(104, "reset by peer"))


def _timed_out(seconds: float) -> ReadTimeoutError:
    return ReadTimeoutError(_NO_POOL, _URL, f"Read timed out. (read timeout={seconds})")


def _status(code: int, reason: str, message: str) -> bytes:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code}
    return json.dumps({**body, "reason": reason, "message": message}).encode()


_JSON = {"Content-Type": "application/json"}
_A_PAGE = Response(200, {"Content-Type": "text/html"}, b"<html>please sign in</html>")
_REFUSALS = {
    Fault.THROTTLED: Response(
        429,
        {**_JSON, "Retry-After": "1"},
        _status(429, "TooManyRequests", "too many requests, please try again later"),
    ),
    Fault.UNAVAILABLE: Response(503, {"Content-Type": "text/plain"}, b"apiserver not ready\n"),
    Fault.INTERNAL: Response(
        500, _JSON, _status(500, "InternalError", "etcdserver: request timed out")
    ),
}


def _response(
    method: str, url: str, answer: Response, *, preload: bool = True, short: bool = False
) -> urllib3.HTTPResponse:
    """short: the connection ends before the last bytes."""
    body = answer.body[: len(answer.body) // 2] if short else answer.body
    return urllib3.HTTPResponse(
        body=BytesIO(body),
        headers={**answer.headers, "Content-Length": str(len(answer.body))},
        status=answer.status,
        preload_content=preload,
        request_method=method,
        request_url=url,
    )
