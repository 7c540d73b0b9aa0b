"""What goes over the wire: how it is asked, what is asked again, and what never is."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3
from kubernetes.client import Configuration
from kubernetes.config import ConfigException

from selfheal_remediator.config import ApiBudget
from selfheal_remediator.failures import ApiFailure, NotLeader
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.collection import PAGE
from selfheal_remediator.kube.rate_limit import URGENT_WAIT
from selfheal_remediator.kube.transport import WATCH_SILENCE
from tests.pure.remediator.fake_runtime import FakeRuntime
from tests.support.loopback import LoopbackServer


class Server(LoopbackServer):
    """Keeps what it was asked; answers each request with what `answer` says: status and body."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.headers: list[dict[str, str]] = []
        self.answer: Callable[[dict[str, str]], tuple[int, Any]] = lambda _: (200, {})
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_any(self) -> None:
                url = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(url.query).items()}
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parsed = json.loads(body) if body else None
                outer.asked.append((self.command, url.path, query, parsed))
                outer.headers.append(dict(self.headers.items()))
                status, said = outer.answer(query)
                text = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PATCH = do_DELETE = do_any  # noqa: N815

            def log_message(self, *_: Any) -> None: ...

        super().__init__(Handler)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def access(server: Server) -> Configuration:
    made = Configuration()
    made.host = server.url
    return made


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def api(access: Configuration, runtime: FakeRuntime) -> KubernetesApi:
    """The real client, which waits for nothing between two tries."""
    return KubernetesApi(access, "d", ApiBudget(qps=1000, burst=1000), runtime=runtime)


# -- what is asked again -----------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_read_is_tried_again_and_a_change_is_sent_once(
    server: Server, api: KubernetesApi, status: int
) -> None:
    server.answer = lambda _: (status, {"kind": "Status", "code": status})
    with pytest.raises(ApiFailure):
        api.node("n")
    assert len(server.asked) == 3
    server.asked.clear()
    changes = (
        lambda: api.patch_node("n", []),
        lambda: api.evict("d", "p", "u", None),
        lambda: api.delete_pod("d", "p", "u", None),
    )
    for change in changes:
        assert change().status == status
    assert len(server.asked) == len(changes)


def test_a_refused_read_is_not_tried_again(server: Server, api: KubernetesApi) -> None:
    server.answer = lambda _: (403, {"kind": "Status", "code": 403})
    with pytest.raises(ApiFailure):
        api.node("n")
    assert len(server.asked) == 1


def _refuses_changes(api: KubernetesApi) -> None:
    """No change of a node or a pod is sent."""
    for change in (
        lambda: api.patch_node("n", []),
        lambda: api.evict("d", "p", "u", None),
        lambda: api.delete_pod("d", "p", "u", None),
    ):
        with pytest.raises(NotLeader):
            change()


def test_without_the_lease_no_change_leaves(server: Server, api: KubernetesApi) -> None:
    def fence() -> None:
        raise NotLeader

    api.fence = fence
    _refuses_changes(api)
    assert server.asked == []


def test_a_lease_that_is_lost_during_a_servers_pause_stops_what_waited(
    server: Server, api: KubernetesApi, runtime: FakeRuntime
) -> None:
    holds = True
    slept: list[float] = []

    def fence() -> None:
        if not holds:
            raise NotLeader

    def sleep(seconds: float) -> None:
        nonlocal holds
        slept.append(seconds)
        holds = False  # it ran out meanwhile

    api.fence = fence
    runtime.on_sleep = sleep
    api.budget.close_for(32)
    with pytest.raises(NotLeader):
        api.evict("d", "p", "u", None)
    assert server.asked == []
    assert slept[0] > 30


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_waits_for_its_turn_while_all_is_stopped_is_not_sent(
    server: Server, api: KubernetesApi, runtime: FakeRuntime, dry_run: bool
) -> None:
    stops = 0

    def sleep(_: float) -> None:
        nonlocal stops
        stops += 1  # a pause, or another mode
        api.dry_run = not dry_run

    api.dry_run = dry_run
    api.fence = lambda: (1, stops)
    runtime.on_sleep = sleep
    api.budget.close_for(32)
    _refuses_changes(api)
    assert server.asked == []


def test_the_lease_is_renewed_while_the_server_asks_to_be_left_alone(
    server: Server, api: KubernetesApi, runtime: FakeRuntime
) -> None:
    slept: list[float] = []
    runtime.on_sleep = slept.append
    api.budget.close_for(32)
    assert api.write("PATCH", "/lease", [], fenced=False, ignore_dry_run=True).ok
    assert slept == [URGENT_WAIT]
    assert len(server.asked) == 1


def test_it_settles_when_the_eviction_under_way_was_answered(
    server: Server, api: KubernetesApi
) -> None:
    """Events wait for that, and a leader that ends lets go of the Lease only then."""
    during: list[bool] = []

    def answer(_: Any) -> Any:
        during.append(api.settle(0.0))
        return 201, {"kind": "Status", "code": 201}

    server.answer = answer
    api.evict("d", "p", "u", None)
    api.delete_pod("d", "p", "u", None)
    api.patch_node("n", [])
    assert during == [False] * 3
    assert api.settle(0.0)


# -- how it is asked ----------------------------------------------------------------------


def test_an_eviction_is_of_this_uid_and_its_grace_is_the_pods_own(
    server: Server, api: KubernetesApi
) -> None:
    api.evict("d", "p", "u", None)
    [(verb, path, query, body)] = server.asked
    assert (verb, path) == ("POST", "/api/v1/namespaces/d/pods/p/eviction")
    assert (body["apiVersion"], body["kind"], body["metadata"]["name"]) == (
        "policy/v1",
        "Eviction",
        "p",
    )
    assert body["deleteOptions"] == {"preconditions": {"uid": "u"}}
    assert "dryRun" not in query


def test_nothing_is_ever_deleted_with_grace_0(server: Server, api: KubernetesApi) -> None:
    for asked, sent in ((None, None), (0, 1), (7, 7)):
        server.asked.clear()
        api.delete_pod("d", "p", "u", asked)
        [(_, _, _, body)] = server.asked
        assert body.get("gracePeriodSeconds") == sent
        assert body["preconditions"] == {"uid": "u"}


def test_in_dry_run_every_change_is_one_and_says_so(server: Server, access: Configuration) -> None:
    api = KubernetesApi(access, "d", ApiBudget(), dry_run=True)
    api.patch_node("n", [])
    api.evict("d", "p", "u", None)
    api.delete_pod("d", "p", "u", None)
    assert [query.get("dryRun") for _, _, query, _ in server.asked] == ["All"] * 3
    # An Eviction says it in its own options too: older servers look only there.
    assert server.asked[1][3]["deleteOptions"]["dryRun"] == ["All"]


def test_a_server_has_the_time_for_an_eviction_that_it_takes(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tries again by itself for ten seconds and more when a budget changes under its hands."""
    waits: list[float] = []

    def request(_: object, method: str, *__: object, **options: Any) -> Any:
        waits.append(options["timeout"].read_timeout)
        raise urllib3.exceptions.ProtocolError(method)

    monkeypatch.setattr(urllib3.PoolManager, "request", request)
    with pytest.raises(ApiFailure):
        api.evict("d", "p", "u", None)
    assert waits[0] > 30


def test_nodes_are_listed_in_pages_as_they_are_now(server: Server, api: KubernetesApi) -> None:
    def page(query: dict[str, str]) -> tuple[int, Any]:
        more = {} if query.get("continue") else {"continue": "more"}
        return 200, {"metadata": {"resourceVersion": "7", **more}, "items": []}

    server.answer = page
    assert [version for _, version in api.nodes().pages()] == ["7", "7"]
    queries = [query for _, _, query, _ in server.asked]
    assert queries == [{"limit": str(PAGE)}, {"limit": str(PAGE), "continue": "more"}]


def test_a_watch_asks_for_bookmarks_continues_where_it_was_and_ends(
    server: Server, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    silences: list[float] = []
    ask = urllib3.PoolManager.request

    def request(pool: urllib3.PoolManager, *args: Any, **options: Any) -> Any:
        silences.append(options["timeout"].read_timeout)
        return ask(pool, *args, **options)

    monkeypatch.setattr(urllib3.PoolManager, "request", request)
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}
    server.answer = lambda _: (200, bookmark)
    list(api.pods_of("n").watch("7", threading.Event()))
    [(_, path, query, _)] = server.asked
    assert path == "/api/v1/pods"
    assert query["fieldSelector"] == "spec.nodeName=n"
    assert (query["watch"], query["allowWatchBookmarks"]) == ("true", "true")
    assert query["resourceVersion"] == "7"
    assert 240 <= int(query["timeoutSeconds"]) <= 300
    # A bookmark comes about once a minute: a longer silence is a broken wire.
    assert silences == [WATCH_SILENCE]
    assert 60 < WATCH_SILENCE < 240


def test_a_token_that_rotates_is_read_again(
    server: Server, access: Configuration, api: KubernetesApi
) -> None:
    tokens = iter(["first", "second"])

    def refresh(configuration: Configuration) -> None:
        configuration.api_key = {"BearerToken": f"Bearer {next(tokens)}"}

    setting: Any = access
    setting.refresh_api_key_hook = refresh
    api.node("n")
    api.node("n")
    sent = [headers["Authorization"] for headers in server.headers]
    assert sent == ["Bearer first", "Bearer second"]
    assert {headers["Accept"] for headers in server.headers} == {"application/json"}


@pytest.mark.parametrize("error", [ConfigException("Token file exists but empty."), OSError("x")])
def test_a_token_that_cannot_be_read_is_a_failure_of_the_request(
    server: Server, access: Configuration, api: KubernetesApi, error: Exception
) -> None:
    """Such a file is there while it is being rotated."""

    def refresh(_: Configuration) -> None:
        raise error

    setting: Any = access
    setting.refresh_api_key_hook = refresh
    for call in (
        lambda: api.node("n"),
        lambda: api.write("PATCH", "/api/v1/nodes/n", {}),
        lambda: list(api.pods_of("n").watch("7", threading.Event())),
    ):
        with pytest.raises(ApiFailure, match=str(error)) as raised:
            call()
        assert raised.value.status == 0
    assert not server.asked
