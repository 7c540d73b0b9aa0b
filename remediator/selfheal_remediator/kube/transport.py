"""Requests to one API server: connections, authentication, rate, fence. The only adapter to the
`kubernetes` package beside access.py.

The package reads kubeconfig or the pod's service account and keeps tokens fresh; requests and
watches go through its urllib3 pool as raw JSON. One rate budget for the whole process, which an
API server's 429 with Retry-After slows down; writes are fenced by the Lease, and only idempotent
requests are repeated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import Protocol
from urllib.parse import urlencode

import urllib3
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.config import ApiBudget
from selfheal_remediator.failures import ApiFailure, Malformed, NotLeader
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.rate_limit import URGENT_WAIT, Budget
from selfheal_remediator.kube.responses import Answer, object_from
from selfheal_remediator.threads.runtime import REAL, Runtime

FIELD_MANAGER = "selfheal-remediator"
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0
#: Bookmarks come about once a minute: longer silence is a dead connection.
WATCH_SILENCE = 80.0
GET_ATTEMPTS = 3
#: Seconds at most before a read is tried again, the first and the second time.
FIRST_PAUSE, LONGEST_PAUSE = 0.8, 1.6

_NODES = "/api/v1/nodes"
JSON = "application/json"


class Pool(Protocol):
    """What answers requests: urllib3's PoolManager, or a model of an API server."""

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
    ) -> urllib3.BaseHTTPResponse: ...


class Transport:
    """Raw requests. Thread-safe.

    fence: called before each write, raises NotLeader if it must not be sent; its result
    identifies the period (a term of leadership, until a pause) in which a write that was begun in
    it has to be sent.
    on_request: called with (verb, code, seconds) of each answer; code 0 = none came.
    """

    def __init__(
        self,
        configuration: Configuration,
        budget: ApiBudget,
        *,
        dry_run: bool = False,
        on_request: Callable[[str, int, float], None] | None = None,
        pool: Pool | None = None,
        runtime: Runtime = REAL,
    ) -> None:
        self.runtime = runtime
        # Watches are opened beside the requests in flight, and a TLS connection that has to be
        # opened again costs as much CPU time as seven requests.
        configuration.connection_pool_maxsize = 3 * budget.max_in_flight
        self._configuration = configuration
        self._pool: Pool = pool or RESTClientObject(configuration).pool_manager
        #: The API server's address, for people.
        self.server = str(configuration.host).rstrip("/")
        self.user_agent = FIELD_MANAGER
        self.dry_run = dry_run
        self.budget = Budget(budget, runtime=runtime)
        self.fence: Callable[[], object] = _unfenced
        self.on_request = on_request or _ignore

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Json:
        """GET an object, tried again when no answer or a 5xx came. Raises ApiFailure."""
        for attempt in range(1, GET_ATTEMPTS + 1):
            try:
                answer = self.send("GET", path, query)
                if answer.ok:
                    return answer.json()
                failure = answer.failure()
            except NotLeader:
                raise
            except ApiFailure as error:
                failure = error
            passing = failure.status in (0, 429) or failure.status >= 500
            if not passing or attempt == GET_ATTEMPTS:
                raise failure
            pause = delay_after(attempt, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
            self.runtime.sleep(pause * self.runtime.random.uniform(0.5, 1.0))
        raise AssertionError("unreachable")

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        *,
        content_type: str = JSON,
        timeout: float = READ_TIMEOUT,
        fenced: bool = False,
        begun: object = None,
        urgent: bool = False,
    ) -> Answer:
        """One request, sent once.

        fenced: not sent after the Lease was lost, or everything was stopped, which may happen
        during the wait for a turn; begun: the result of `fence` when it was prepared. urgent: our
        Lease, which must not expire because the server throttles everything else.

        Raises ApiFailure with status 0 when no answer came, Malformed for a success without an
        object in it (a proxy's page is no list of nodes, and no eviction), and NotLeader.
        """
        wait = self.budget.reserve(protects=urgent or path.startswith(_NODES))
        if wait > 0:
            self.runtime.sleep(min(wait, URGENT_WAIT) if urgent else wait)
        if fenced and self.fence() != begun:
            raise NotLeader  # it leads again, by what it knows now
        response = self._request(
            method,
            method,
            self._url(path, query),
            body=None if body is None else json.dumps(body, separators=(",", ":")),
            content_type=content_type if body is not None else None,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=timeout),
        )
        answer = Answer(
            response.status, response.data, retry_after(response.headers, self.runtime.time())
        )
        if answer.throttled:
            self.budget.close_for(answer.retry_after or 1.0)
        if not answer.ok:
            return answer
        parsed = object_from(answer.body)
        if parsed is None:
            said = answer.body[:100].decode("utf-8", "replace")
            raise Malformed(f"{method} {path}: {answer.status} and not a JSON object: {said!r}")
        return Answer(answer.status, b"", answer.retry_after, parsed)

    def _request(
        self,
        verb: str,
        method: str,
        url: str,
        *,
        timeout: urllib3.Timeout,
        body: str | None = None,
        content_type: str | None = None,
        preload_content: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        """One request over the pool, counted as `verb`. Raises ApiFailure when no answer came."""
        started = self.runtime.monotonic()
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers=self._headers(content_type),
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=preload_content,
            )
        except Exception as error:
            # Not HTTPError alone: the token file may be unreadable while it is being rotated, and
            # TLS and the operating system have errors of their own.
            self.on_request(verb, 0, self.runtime.monotonic() - started)
            raise ApiFailure(0, type(error).__name__, str(error)) from error
        self.on_request(verb, response.status, self.runtime.monotonic() - started)
        return response

    def write(
        self,
        method: str,
        path: str,
        body: object,
        *,
        content_type: str = JSON,
        timeout: float = READ_TIMEOUT,
        fenced: bool = True,
        ignore_dry_run: bool = False,
        dry_run: bool = False,
        begun: object = None,
        options: Mapping[str, str] | None = None,
    ) -> Answer:
        """A change, sent once: fenced by the Lease, with dryRun=All in dry-run mode.

        `ignore_dry_run` is for writes that are needed in dry-run mode too (our own Lease),
        `dry_run` for a single dry run; `begun`: the result of `fence` from before the caller
        checked whether this may be sent; `options`: of the query, beside or
        instead of ours. Raises NotLeader.
        """
        begun = begun or (self.fence() if fenced else None)
        query = {"fieldManager": FIELD_MANAGER} if method != "DELETE" else {}
        if dry_run or (self.dry_run and not ignore_dry_run):
            query["dryRun"] = "All"
        return self.send(
            method,
            path,
            {**query, **(options or {})},
            body,
            content_type=content_type,
            timeout=timeout,
            fenced=fenced,
            begun=begun,
            urgent=ignore_dry_run,
        )

    def open_watch(self, path: str, query: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """A streaming GET. Raises ApiFailure (Expired for 410)."""
        wait = self.budget.reserve(protects=path.startswith(_NODES))
        if wait > 0:
            self.runtime.sleep(wait)
        response = self._request(
            "WATCH",
            "GET",
            self._url(path, query),
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=WATCH_SILENCE),
            preload_content=False,
        )
        if response.status == 200:
            return response
        try:
            body = response.read()
        except Exception as error:  # urllib3 raises a ValueError for some chunk sizes
            raise ApiFailure(response.status, type(error).__name__, str(error)) from error
        finally:
            response.release_conn()
        answer = Answer(response.status, body, retry_after(response.headers, self.runtime.time()))
        if answer.throttled:
            self.budget.close_for(answer.retry_after or 1.0)
        raise answer.failure()

    def _url(self, path: str, query: Mapping[str, str] | None) -> str:
        return f"{self.server}{path}" + (f"?{urlencode(query)}" if query else "")

    def _headers(self, content_type: str | None) -> dict[str, str]:
        headers = {"Accept": JSON, "User-Agent": self.user_agent}
        if content_type is not None:
            headers["Content-Type"] = content_type
        # Reads it each time: the package reads the token file again when it has rotated.
        token = self._configuration.get_api_key_with_prefix("authorization", alias="BearerToken")
        if token:
            headers["Authorization"] = token
        elif self._configuration.username:
            headers["Authorization"] = self._configuration.get_basic_auth_token() or ""
        return headers


def _unfenced() -> None:
    """Nothing forbids a write."""


def _ignore(_verb: str, _code: int, _seconds: float) -> None:
    """Nobody counts the requests."""


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds from Retry-After, in either form of RFC 9110 10.2.3; None where it has neither.

    A date is compared with the answer's own Date where it has one: our clock may be wrong.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    with suppress(TypeError, ValueError, OverflowError):
        now = parsedate_to_datetime(headers.get("Date", "")).timestamp()
    return max(0.0, at - now)
