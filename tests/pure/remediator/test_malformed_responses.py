"""Whatever an API server, or a proxy in its place, answers: it is understood or refused, and
nothing that was not said is done. Through the real client, against a small HTTP server.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes.client import Configuration

from selfheal_remediator.config import ApiBudget, Config, SettingsError, load_config, parse_config
from selfheal_remediator.drain.requests import still_draining
from selfheal_remediator.failures import ApiFailure, Malformed
from selfheal_remediator.healing.pod_health import watched_from_json
from selfheal_remediator.healing.policy import policy_from_json
from selfheal_remediator.kube.budgets import budget_from_json
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.informer import Change, Reflector
from selfheal_remediator.kube.lease import lease_from_json
from selfheal_remediator.kube.objects import Node, node_from_json
from selfheal_remediator.kube.permissions import Permission
from selfheal_remediator.kube.pods import pod_from_json
from selfheal_remediator.kube.rate_limit import Budget
from selfheal_remediator.kube.responses import Outcome, classify_eviction
from selfheal_remediator.node.actions import Kind
from selfheal_remediator.node.annotation import STATE_KEY, State, Unreadable, parse_state
from selfheal_remediator.node.planner import Planner
from tests.pure.remediator.api_objects import BUDGET, LEASE, NODE, POD, POLICY, Json, broken
from tests.pure.remediator.builders import NOW, OWNER, config, rule
from tests.pure.remediator.fake_runtime import FakeRuntime
from tests.support.loopback import Handler, LoopbackServer

pytestmark = pytest.mark.filterwarnings("ignore:.*:ResourceWarning")

DECODERS: list[tuple[Callable[[Json], Any], Json]] = [
    (node_from_json, NODE),
    (pod_from_json, POD),
    (budget_from_json, BUDGET),
    (lease_from_json, LEASE),
    (watched_from_json, POD),
    (policy_from_json, POLICY),
]


@pytest.mark.parametrize(("decode", "good"), DECODERS)
def test_the_whole_object_is_understood(decode: Callable[[Json], Any], good: Json) -> None:
    assert decode(good).uid == good["metadata"]["uid"]


@pytest.mark.parametrize(("decode", "good"), DECODERS)
@given(st.data())
def test_a_broken_object_is_read_or_refused(
    decode: Callable[[Json], Any], good: Json, data: st.DataObject
) -> None:
    raw = data.draw(broken(good))
    try:
        made = decode(raw)
    except Malformed:
        return
    assert isinstance(made.uid, str)
    assert made.uid
    hash(made.uid)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(("decode", "good"), DECODERS)
@given(json_values)
def test_any_json_in_the_place_of_an_object_is_refused(
    decode: Callable[[Json], Any], good: Json, value: Any
) -> None:
    with pytest.raises(Malformed):
        decode(value)


#: Deeper than Python's own parser goes. Made by a function, so that no failure prints it.
DEEP = "[" * 100_000

ANNOTATIONS = (
    st.text(max_size=60)
    | json_values.map(json.dumps)
    | broken(
        {
            "v": 1,
            "phase": "draining",
            "by": OWNER,
            "condition": "Fault",
            "transition": 5,
            "since": 6,
            "cordons": [1, 2],
        }
    ).map(json.dumps)
    | st.integers(0, 1).map(lambda _: DEEP)
)


@given(ANNOTATIONS)
def test_any_annotation_is_a_state_or_unreadable(text: str) -> None:
    with contextlib.suppress(Unreadable):
        assert isinstance(parse_state(text), State)


@given(st.lists(broken(NODE), max_size=3), ANNOTATIONS, st.booleans())
def test_the_planner_touches_no_node_of_which_nothing_bad_was_reported(
    raws: list[Json], annotation: str, cordoned: bool
) -> None:
    """Conditions, cordon and annotation are anything; only a rule's condition leads to a hold."""
    planner = Planner(config(rule()), OWNER, NOW)
    marked = json.loads(json.dumps(NODE))
    marked["metadata"] |= {"uid": "marked", "annotations": {STATE_KEY: annotation}}
    marked["spec"]["unschedulable"] = cordoned
    known: dict[str, Node] = {}
    for raw in [*raws, marked]:
        try:
            node = node_from_json(raw)
        except Malformed:
            continue
        known[node.uid] = node
        planner.apply(Change(node.name, None, node), NOW)
    for action in planner.plan(NOW + 1).actions:
        node = known[action.uid]
        assert action.kind is not Kind.CORDON or "Fault" in node.conditions
        assert not still_cordoned_by_others(node) or action.kind is not Kind.UNCORDON


def still_cordoned_by_others(node: Node) -> bool:
    """Cordoned, and no readable annotation says that it was us."""
    try:
        state = parse_state(node.annotations.get(STATE_KEY, "null"))
    except Unreadable:
        return node.unschedulable
    return node.unschedulable and state.by != OWNER


@given(broken(NODE), ANNOTATIONS)
def test_a_drain_continues_only_on_a_node_that_says_so(raw: Json, annotation: str) -> None:
    if isinstance(raw.get("metadata"), dict):
        raw["metadata"]["annotations"] = {STATE_KEY: annotation}
    try:
        ours = still_draining(raw, "u-n1")
    except Malformed:
        return
    if ours:
        assert raw["spec"]["unschedulable"] is True
        assert parse_state(annotation).phase.cordoned


CONFIG_TEXTS = st.text(max_size=80) | (
    broken(
        {
            "mode": "enforce",
            "nodeSelector": {"a": "b"},
            "rules": [
                {
                    "condition": "X",
                    "status": ["True"],
                    "for": "1m",
                    "action": "drain",
                    "reason": "a.*",
                }
            ],
            "limits": {
                "maxUnavailable": "10%",
                "minAllowed": 1,
                "maxDraining": 1,
                "minInterval": "0s",
            },
            "recovery": {"stabilizationWindow": "5m"},
            "drain": {"deadline": "30m", "onDeadline": "wait", "gracePeriod": None},
            "lease": {"duration": "15s", "renewInterval": "5s", "renewDeadline": "10s"},
            "policies": {"enabled": True, "namespaces": [], "evaluationInterval": "10s"},
        }
    )
    | json_values
).map(json.dumps)


@given(CONFIG_TEXTS)
def test_any_configuration_is_taken_or_refused_with_what_is_wrong(text: str) -> None:
    with contextlib.suppress(SettingsError):
        assert isinstance(parse_config(text, "fuzz.yaml"), Config)


@pytest.mark.parametrize("text", ["[" * 5_000, "mode: 2026-13-41", "mode: 0x", "? {}\n: 1"])
def test_what_yaml_itself_trips_over_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_config(text, "odd.yaml")


def test_a_configuration_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"mode: \xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8 at byte 6"):
        load_config(tmp_path / "binary.yaml")


# -- the client ----------------------------------------------------------------------------


class Server(LoopbackServer):
    """Answers each request with the next of `answers`, the last one again and again.

    watches: the answers to watches, if these have their own.
    """

    def __init__(self) -> None:
        self.answers: list[bytes | Callable[[Any], None]] = []
        self.watches: list[bytes | Callable[[Any], None]] = []
        self.asked: list[str] = []
        outer = self

        class Answering(Handler):
            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                outer.asked.append(f"{self.command} {self.path}")
                is_watch = outer.watches and "watch=true" in self.path
                answers = outer.watches if is_watch else outer.answers
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                self.close_connection = True
                try:
                    answer(self.wfile) if callable(answer) else self.wfile.write(answer)
                except OSError:
                    return

            do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

        super().__init__(Answering)


GENEROUS = ApiBudget(qps=1000, burst=1000)


@pytest.fixture
def server() -> Iterator[Server]:
    """One for each test: a connection that a bad answer left behind is nobody else's."""
    made = Server()
    yield made
    made.close()


@pytest.fixture
def api(server: Server) -> KubernetesApi:
    """The real client, which waits for nothing between two tries."""
    access = Configuration()
    access.host = server.url
    return KubernetesApi(access, "d", GENEROUS, runtime=FakeRuntime())


#: The server closes after each answer; said, so that the client opens another in time.
CLOSE = "Connection: close"


def http(status: int, body: bytes, *headers: str, length: int | None = None) -> bytes:
    """An answer as bytes on the wire; `length` says another Content-Length than the true one."""
    head = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*head, *headers, "", ""]).encode("latin-1") + body


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


NODES: dict[str, Any] = {
    "kind": "NodeList",
    "metadata": {"resourceVersion": "9"},
    "items": [NODE],
}
SUCCESS = encoded({"kind": "Status", "status": "Success"})
BODIES = (
    st.binary(max_size=60)
    | json_values.map(encoded)
    | broken(NODE).map(encoded)
    | broken(NODES).map(encoded)
    | broken({"kind": "Status", "code": 500, "details": {"causes": [{"reason": "x"}]}}).map(encoded)
    | st.sampled_from([b"<html>sign in</html>", b"null", b"\xff\xfe", SUCCESS[:-3]])
    | st.integers(0, 1).map(lambda _: DEEP.encode())
)
STATUSES = st.sampled_from([200, 201, 204, 301, 400, 401, 403, 404, 409, 410, 422, 429, 500, 503])
HEADERS = st.sampled_from(
    [
        (),
        ("Content-Type: text/html",),
        ("Retry-After: \xb2",),
        ("Retry-After: -1",),
        ("Retry-After: 0",),
        ("Content-Encoding: gzip",),
        ("Transfer-Encoding: chunked",),
        ("Location: http://127.0.0.1:9/elsewhere",),
    ]
)
ANSWERS = st.builds(
    lambda status, body, headers, extra: http(status, body, *headers, length=len(body) + extra),
    STATUSES,
    BODIES,
    HEADERS,
    st.sampled_from([0, 0, 0, 7]),
) | st.sampled_from([b"", b"HTTP/1.1 ", b"\x00" * 20, b"SSH-2.0-OpenSSH\r\n"])

fuzzed = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@fuzzed
@given(answer=ANSWERS)
def test_any_answer_to_any_request_is_an_answer_or_a_failure(
    server: Server, api: KubernetesApi, answer: bytes
) -> None:
    server.answers = [answer]
    api.budget.close_for(0)
    stop = threading.Event()

    def listed() -> None:
        for raws, version in api.nodes().pages():
            said_empty = b'"items": []' in answer  # the fuzz may draw just that
            assert raws or said_empty, "a list was empty that nobody called empty"
            assert version
            break

    def watched() -> None:
        for event in api.nodes().watch("1", stop):
            assert isinstance(event.raw, dict)

    asked: list[Callable[[], object]] = [
        lambda: node_from_json(api.node("n1")),
        listed,
        watched,
        lambda: api.claim_terms("d", "c"),
        lambda: lease_from_json(api.patch_node("n1", []).json()),
        lambda: api.missing([Permission("get", "", "nodes")]),
    ]
    for ask in asked:
        api.transport.budget = Budget(GENEROUS)  # a pause that was requested is over
        with contextlib.suppress(ApiFailure):
            ask()


@fuzzed
@given(answer=ANSWERS)
def test_an_eviction_counts_as_made_only_when_the_server_says_so(
    server: Server, api: KubernetesApi, answer: bytes
) -> None:
    server.answers = [answer]
    try:
        result = classify_eviction(api.evict("d", "p", "u", None))
    except ApiFailure:
        return
    if result.outcome is Outcome.ACCEPTED:
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 201"))
        assert isinstance(json.loads(answer.partition(b"\r\n\r\n")[2]), dict)


def test_a_permission_is_missing_unless_the_server_says_true(
    server: Server, api: KubernetesApi
) -> None:
    wanted = [Permission("get", "", "nodes")]
    server.answers = [http(201, encoded({"status": {"allowed": "false"}}), CLOSE)]
    assert api.missing(wanted) == wanted
    server.answers = [http(201, encoded({"status": {"allowed": True}}), CLOSE)]
    assert api.missing(wanted) == []


def test_a_list_that_continues_from_the_same_place_for_ever_ends(
    server: Server, api: KubernetesApi
) -> None:
    metadata = {**NODES["metadata"], "continue": "here"}
    server.answers = [http(200, encoded({**NODES, "metadata": metadata})) for _ in range(9)]
    with pytest.raises(ApiFailure, match="does not advance"):
        list(api.nodes().pages())


@pytest.mark.parametrize(
    "page",
    [
        http(200, b"<html>sign in</html>", "Content-Type: text/html"),
        http(200, b"{}"),
        http(200, encoded({"kind": "Status", "status": "Success"})),
        http(200, encoded({**NODES, "items": {}})),
        http(200, encoded({**NODES, "metadata": {}})),
        http(200, encoded(NODES), length=len(encoded(NODES)) + 5),
        http(200, encoded({**NODES, "items": [{**NODE, "metadata": {}}]})),
    ],
)
def test_a_list_that_is_none_takes_no_known_node_away(
    server: Server, api: KubernetesApi, page: bytes
) -> None:
    """Else a login page would be a cluster without nodes, and a drained node full of pods."""
    told: list[Change[Node]] = []
    reflector = Reflector(
        api.nodes(),
        node_from_json,
        lambda node: node.name,
        told.append,
        lambda: None,
        lambda failure: None,
        threading.Event(),
    )
    server.answers = [http(200, encoded(NODES))]
    assert reflector.relist() == "9"
    server.answers = [page]
    with pytest.raises(ApiFailure):
        reflector.relist()
    assert list(reflector.items) == ["n1"]
    assert [change.new is None for change in told] == [False]


EVENTS = [
    b'{"type": "ADDED", "object": {}}\n',
    b'{"type": "MODIFIED"}\n',
    b'{"type": "NEWS", "object": {"metadata": {"resourceVersion": "2"}}}\n',
    b'{"type": "DELETED", "object": {"metadata": {"resourceVersion": "2", "name": "n1"}}}\n',
    b'["ADDED"]\n',
    b"null\n",
    b"\xff\xff\n",
    b"[" * 50_000 + b"\n",
    b'{"type": "ERROR", "object": {"code": "many", "details": [1]}}\n',
    b"<html>\n",
    b"",
]


def test_a_watch_survives_any_event_and_continues(server: Server, api: KubernetesApi) -> None:
    stop, seen = threading.Event(), threading.Event()

    def changed(change: Change[Node]) -> None:
        if change.new is not None and change.new.version == "50":
            seen.set()

    reflector = Reflector(
        api.nodes(),
        node_from_json,
        lambda node: node.name,
        changed,
        lambda: None,
        lambda failure: None,
        stop,
        runtime=FakeRuntime(pauses=0.01),
    )
    good = encoded({"type": "MODIFIED", "object": with_version("50")}) + b"\n"
    # The client may ask twice where the server hangs up: only the last answer must arrive.
    server.answers = [http(200, encoded(NODES), CLOSE)]
    server.watches = [
        *(http(200, event, CLOSE) for event in EVENTS),
        http(410, encoded({"kind": "Status", "code": 410}), CLOSE),
        http(200, b"{}", CLOSE),
        http(200, good, CLOSE),
    ]
    thread = threading.Thread(target=reflector.run, daemon=True)
    thread.start()
    assert seen.wait(30)
    assert list(reflector.items) == ["n1"]
    stop.set()
    thread.join(30)
    assert not thread.is_alive()


def with_version(version: str) -> Json:
    """The node, later."""
    return {**NODE, "metadata": {**NODE["metadata"], "resourceVersion": version}}


def test_a_watch_that_ends_at_once_is_not_opened_in_a_loop(
    server: Server, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    waits: list[float] = []

    def wait(seconds: float | None = None) -> bool:
        waits.append(seconds or 0.0)
        if len(waits) == 4:
            stop.set()
        return stop.is_set()

    monkeypatch.setattr(stop, "wait", wait)
    server.answers = [http(200, encoded(NODES), CLOSE)]
    server.watches = [http(200, b"", CLOSE)]
    runtime = FakeRuntime(pauses=1.0)
    runtime.clock = lambda: 0.0  # else a slow machine's watch has lived for long
    reflector = Reflector(
        api.nodes(),
        node_from_json,
        lambda node: node.name,
        lambda _: None,
        lambda: None,
        lambda _: None,
        stop,
        runtime=runtime,
    )
    reflector.run()
    assert waits == [0.4, 0.8, 1.6, 3.2]


def test_a_server_that_does_not_answer_in_time_is_no_answer(
    server: Server, api: KubernetesApi
) -> None:
    hang = threading.Event()

    def hangs(_: object) -> None:
        hang.wait(30)

    server.answers = [hangs]
    try:
        started = time.monotonic()
        with pytest.raises(ApiFailure) as found:
            api.send("GET", "/api/v1/nodes/n1", timeout=0.1)
        assert found.value.status == 0
        assert time.monotonic() - started < 30
    finally:
        hang.set()


def test_an_error_whose_text_breaks_off_is_an_error_of_the_watch(
    server: Server, api: KubernetesApi
) -> None:
    server.answers = [http(503, b"half", length=50)]
    with pytest.raises(ApiFailure):
        next(api.nodes().watch("1", threading.Event()))


@pytest.mark.parametrize("size", [b"-2", b"-0", b"x"])
def test_an_error_in_chunks_of_a_senseless_size_is_an_error_of_the_watch(
    server: Server, api: KubernetesApi, size: bytes
) -> None:
    server.answers = [http(503, size + b"\r\nhalf", "Transfer-Encoding: chunked")]
    with pytest.raises(ApiFailure):
        next(api.nodes().watch("1", threading.Event()))
