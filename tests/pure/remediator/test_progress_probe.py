"""A pod that is asked how its work goes may answer with anything, at any pace."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from selfheal_remediator.healing.progress_probe import NoAnswer, ProgressProbe, reading_from
from tests.pure.remediator.builders import NOW
from tests.support.waiting import PATIENCE

GOOD = b'{"in_flight": 1, "last_progress": 1}'


@pytest.mark.parametrize(
    "body",
    [
        b'{"in_flight": 1e999, "last_progress": 1}',
        b'{"in_flight": NaN, "last_progress": 1}',
        b'{"in_flight": 1, "last_progress": -1e999}',
        b'{"in_flight": 1, "last_progress": NaN}',
        b'{"in_flight": 1, "last_progress": 1' + b"0" * 400 + b"}",
        b'{"in_flight": 1, "last_progress": 1, "oldest_age": 1e999}',
        b'{"in_flight": 1, "last_progress": 1, "oldest_age": NaN}',
        b"[" * 60_000,
        b'{"in_flight": ' + b"[" * 60_000,
        b'{"in_flight": null, "last_progress": null}',
        b'"in_flight"',
    ],
)
def test_numbers_that_are_none_say_nothing(body: bytes) -> None:
    with pytest.raises(NoAnswer):
        reading_from(body, {}, NOW)


@pytest.mark.parametrize(
    "date",
    ["soon", "", f"Mon, 01 Jan {'9' * 30} 00:00:00 GMT"],
)
def test_a_date_that_is_none_is_as_good_as_no_date(date: str) -> None:
    assert reading_from(GOOD, {"Date": date}, NOW).idle == NOW - 1


@contextmanager
def _server(*pieces: bytes, drip: bytes = b"") -> Iterator[int]:
    """Sends these, then the drip again and again until nobody listens."""
    listening = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def serve() -> None:
        try:
            peer, _ = listening.accept()
            with peer:
                peer.recv(65_536)  # unread, the answer could be lost with the connection
                for piece in pieces:
                    peer.sendall(piece)
                while drip and not over.wait(0.01):
                    peer.sendall(drip)
        except OSError:
            over.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        over.set()
        listening.close()
        thread.join(30)


@pytest.mark.parametrize(
    "begin",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n",
     b"HTTP/1.1 200 OK\r\n\r\n" + GOOD, b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["status", "headers", "one header", "body", "after the body", "continue"],
)  # fmt: skip
def test_a_pod_that_drips_its_answer_keeps_no_thread(begin: bytes) -> None:
    with _server(begin, drip=b" ") as port, pytest.raises(NoAnswer, match="too slow"):
        ProgressProbe(0.2).probe("127.0.0.1", port, "/progress", NOW)


def test_a_read_that_ends_before_the_timer_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Timer, "start", lambda _: None)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(NoAnswer, match="too slow"),
    ):
        ProgressProbe(0.05).probe("127.0.0.1", silent.getsockname()[1], "/progress", NOW)


@pytest.mark.parametrize(
    "answer",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + GOOD[:9],
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"],
)  # fmt: skip
def test_what_is_no_http_says_nothing(answer: bytes) -> None:
    with _server(answer) as port, pytest.raises(NoAnswer):
        ProgressProbe(PATIENCE).probe("127.0.0.1", port, "/progress", NOW)


@pytest.mark.parametrize("path", ["/progress", "/a b?c=d", "/\u00e4", "/a\r\nX: y"])
def test_any_path_can_be_asked_for(path: str) -> None:
    with _server(b"HTTP/1.1 200 OK\r\n\r\n" + GOOD) as port:
        assert ProgressProbe(PATIENCE).probe("127.0.0.1", port, path, NOW).in_flight == 1
