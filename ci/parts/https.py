"""Gets files by HTTPS alone, checks them by their checksums, and continues what broke off.

Proxies and certificate authorities are those of the usual variables (HTTPS_PROXY, NO_PROXY,
REQUESTS_CA_BUNDLE).
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from ci.parts.errors import Refused, Unreachable

LARGEST_DOWNLOAD = 1 << 30
"""Bytes. The largest today, Kubernetes' servers, has a third of it."""
_REDIRECTS = 5
_TRIES = 5
_CHUNK = 1 << 20
_CONNECT_SECONDS = 5.0
_READ_SECONDS = 30.0


@contextmanager
def opened(
    url: str, headers: Mapping[str, str] | None = None, read_seconds: float = _READ_SECONDS
) -> Iterator[requests.Response]:
    """The response to a GET, its body unread; any status but a redirect, which is followed.

    Raises Unreachable when nothing answers, Refused for a redirect to anything but HTTPS.
    """
    sent = {"Accept-Encoding": "identity", **(headers or {})}
    with requests.Session() as session:
        # Else a netrc file would take the place of our own Authorization.
        session.auth = lambda request: request
        for _ in range(_REDIRECTS):
            if urlsplit(url).scheme != "https":
                raise Refused(f"{url} is refused: it is not https")
            try:
                response = session.get(
                    url,
                    headers=sent,
                    stream=True,
                    allow_redirects=False,
                    timeout=(_CONNECT_SECONDS, read_seconds),
                )
            except (requests.RequestException, OSError) as error:
                raise Unreachable(f"{url} cannot be reached: {error}") from error
            if not response.is_redirect:
                with response:
                    yield response
                return
            url = _redirected(url, response, sent)
    raise Refused(f"{url} is refused: more than {_REDIRECTS} redirects")


def _redirected(url: str, response: requests.Response, sent: dict[str, str]) -> str:
    """Where it leads; what we sent for one host alone is not sent to another."""
    response.close()
    target = urljoin(url, response.headers["Location"])
    if urlsplit(target).scheme != "https":
        raise Refused(f"{url} is refused: it redirects to {target}, which is not https")
    if urlsplit(target).netloc != urlsplit(url).netloc:
        sent.pop("Authorization", None)
    return target


def small(response: requests.Response, most: int) -> bytes:
    """The body, which may have at most so many bytes."""
    return b"".join(_chunks(response, most, 0))


def download(
    url: str,
    checksum: str,
    target: Path,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Gets a file to `target`, which then has this checksum.

    What arrived before an interruption is kept beside it (`.part`) and continued, also by the next
    process. Raises Unreachable, and Refused, which keeps nothing.
    """
    part = target.with_name(f"{target.name}.part")
    for left in reversed(range(_TRIES)):
        try:
            _transfer(url, part, headers or {})
            break
        except Unreachable:
            if not left:
                raise
        except Refused:
            part.unlink(missing_ok=True)
            raise
    try:
        with part.open("rb") as content:
            check(url, content, checksum)
    except Refused:
        part.unlink()
        raise
    part.rename(target)


def check(what: str, content: BufferedReader | BytesIO, checksum: str) -> None:
    """Raises Refused when the content has another checksum."""
    algorithm = checksum.partition(":")[0]
    got = f"{algorithm}:{hashlib.file_digest(content, algorithm).hexdigest()}"
    if got != checksum:
        raise Refused(f"wrong checksum, refused: {what}\n  expected {checksum}\n  got      {got}")


def _transfer(url: str, part: Path, headers: Mapping[str, str]) -> None:
    """One request; appends to `part` what it does not have yet."""
    start = part.stat().st_size if part.exists() else 0
    wanted = {**headers, "Range": f"bytes={start}-"} if start else headers
    with opened(url, wanted) as response:
        if response.status_code == 416:  # all of it is there, or it was another file
            part.unlink(missing_ok=True)
            raise Unreachable(f"{url}: the server cannot continue what broke off")
        if response.status_code not in (200, 206):
            raise Unreachable(f"{url} cannot be had: HTTP status {response.status_code}")
        if response.status_code == 206 and not _continues(response, start):
            part.unlink(missing_ok=True)
            raise Unreachable(f"{url}: the server sent another part of the file")
        start = start if response.status_code == 206 else 0
        with part.open("ab" if start else "wb") as file:
            for chunk in _chunks(response, LARGEST_DOWNLOAD, start):
                file.write(chunk)


def _continues(response: requests.Response, start: int) -> bool:
    return bool(re.match(rf"bytes {start}-", response.headers.get("Content-Range", "")))


def _chunks(response: requests.Response, largest: int, start: int) -> Iterator[bytes]:
    """The body as it is sent. Raises Refused beyond `largest`, Unreachable when it breaks off."""
    length = response.headers.get("Content-Length", "")
    expected = int(length) if length.isdigit() else None
    received = 0
    try:
        for chunk in response.raw.stream(_CHUNK, decode_content=False):
            received += len(chunk)
            if start + received > largest:
                raise Refused(f"{response.url} is refused: larger than {largest} bytes")
            yield chunk
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unreachable(f"{response.url} broke off: {error}") from error
    if expected is not None and received < expected:
        raise Unreachable(f"{response.url} broke off after {received} of {expected} bytes")
