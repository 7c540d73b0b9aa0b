"""Decoding, relists with synthesised deletes, and expiry in both of its forms."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfheal_remediator.failures import ApiFailure, Expired
from selfheal_remediator.kube.budgets import budget_from_json
from selfheal_remediator.kube.informer import Change, Informer, Reflector, WatchEvent, differences
from selfheal_remediator.kube.json_values import timestamp
from selfheal_remediator.kube.objects import node_from_json
from selfheal_remediator.kube.pods import pod_from_json
from selfheal_remediator.kube.resources import exact
from selfheal_remediator.kube.store import ObjectStore
from selfheal_remediator.threads.runtime import Event
from tests.pure.remediator.builders import node, pod
from tests.pure.remediator.fake_runtime import FakeRuntime

pytestmark = pytest.mark.usefixtures("quick_restarts")
NODE: dict[str, Any] = {
    "metadata": {
        "name": "a",
        "uid": "1",
        "resourceVersion": "7",
        "labels": {"node-role.kubernetes.io/control-plane": ""},
        "annotations": {"selfheal.dev/exclude": "x", "huge/thing": "y" * 1000},
    },
    "spec": {"unschedulable": True, "taints": [{"key": "k", "effect": "NoSchedule"}]},
    "status": {
        "nodeInfo": {"bootID": "b"},
        "allocatable": {"cpu": "1500m", "memory": "2Gi", "pods": "110"},
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "lastHeartbeatTime": None,
            }
        ],
    },
}


def test_a_node_is_trimmed() -> None:
    found = node_from_json(NODE)
    assert found.unschedulable
    assert found.control_plane
    assert found.ready
    assert found.annotations == {"selfheal.dev/exclude": "x"}
    assert found.conditions["Ready"].transition == 1767225600.0
    assert found.conditions["Ready"].heartbeat is None
    assert (found.allocatable.cpu, found.allocatable.memory) == (1500, 2 * 2**30)


def test_an_empty_node_is_a_node() -> None:
    found = node_from_json({"metadata": {"name": "a", "uid": "1"}})
    assert not found.ready
    assert not found.unschedulable


@pytest.mark.parametrize(
    ("text", "number"),
    [("250m", 0.25), ("1Gi", 2**30), ("1e3", 1000), ("2", 2), ("1k", 1000), ("5E", 5e18)],
)
def test_quantities(text: str, number: float) -> None:
    assert exact(text) == pytest.approx(number)


def _pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": spec}


def test_requests_are_summed_as_the_scheduler_does() -> None:
    def container(cpu: str, **more: str) -> dict[str, Any]:
        return {"resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}, **more}

    found = pod_from_json(
        _pod(
            containers=[container("100m"), container("200m")],
            initContainers=[container("1"), container("50m", restartPolicy="Always")],
        )
    )
    assert found.requests.cpu == 1000
    assert found.requests.memory == 3 * 2**20


def _in(key: str, *values: str) -> dict[str, Any]:
    return {"key": key, "operator": "In", "values": list(values)}


@pytest.mark.parametrize(
    ("terms", "pinned"),
    [
        ([{"matchExpressions": [_in("kubernetes.io/hostname", "a")]}], True),
        ([{"matchExpressions": [_in("kubernetes.io/hostname", "a", "b")]}], False),
        ([{"matchExpressions": [_in("zone", "a")]}], False),
        ([{"matchFields": [_in("metadata.name", "a")]}], True),
        ([], False),
    ],
)
def test_affinity_to_one_host_is_a_pin(terms: list[dict[str, Any]], pinned: bool) -> None:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    assert pod_from_json(_pod(affinity={"nodeAffinity": required})).pinned is pinned


@pytest.mark.parametrize(
    ("annotation", "value", "kept"),
    [
        ("selfheal.dev/evict", "false", True),
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false", True),
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "true", False),
        ("karpenter.sh/do-not-disrupt", "true", True),
        ("karpenter.sh/do-not-disrupt", "4h", True),
        ("karpenter.sh/do-not-disrupt", "1h30m", True),
        ("karpenter.sh/do-not-disrupt", "soon", True),
        ("karpenter.sh/do-not-disrupt", "0s", False),
        ("karpenter.sh/do-not-disrupt", "0h0m", False),
        ("karpenter.sh/do-not-disrupt", "", False),
        ("karpenter.sh/do-not-disrupt", "false", False),
    ],
)
def test_a_pod_that_asks_to_stay_says_so_by_annotation(
    annotation: str, value: str, kept: bool
) -> None:
    raw = _pod()
    raw["metadata"]["annotations"] = {annotation: value}
    assert pod_from_json(raw).keep_reason == (f"annotation {annotation}={value}" if kept else "")


def test_a_pod_of_the_kubelets_own_is_known_by_its_annotation_not_by_its_owner() -> None:
    raw = _pod()
    raw["metadata"]["ownerReferences"] = [{"kind": "Node", "name": "a", "uid": "u"}]
    assert not pod_from_json(raw).mirror
    raw["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "hash"}
    assert pod_from_json(raw).mirror


def test_a_budget_covers_by_labels_and_expressions() -> None:
    def budget(selector: object) -> Any:
        meta = {"name": "b", "namespace": "default", "uid": "u"}
        return budget_from_json({"metadata": meta, "spec": {"selector": selector}})

    assert budget({}).covers(pod())
    assert not budget(None).covers(pod())
    assert budget({"matchLabels": {"app": "web"}}).covers(pod())
    assert not budget({"matchLabels": {"app": "web"}}).covers(pod(namespace="other"))
    expression = {"key": "app", "operator": "NotIn", "values": ["web"]}
    assert not budget({"matchExpressions": [expression]}).covers(pod())


NAMES = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 2), max_size=5)


@given(NAMES, NAMES)
def test_differences_lead_from_the_old_to_the_new(old: dict[str, int], new: dict[str, int]) -> None:
    before = {name: node(name, uid=f"{uid}") for name, uid in old.items()}
    after = {name: node(name, uid=f"{uid}", version="2") for name, uid in new.items()}
    seen = dict(before)
    for change in differences(before, after):
        assert seen.get(change.key) == change.old
        if change.new is None:
            del seen[change.key]
        else:
            assert change.old is None or change.old.uid == change.new.uid
            seen[change.key] = change.new
    assert seen == after


class Script:
    """A source that plays lists and watches in turn, then stops the reflector."""

    def __init__(self, stop: threading.Event, lists: list[Any], watches: list[Any]) -> None:
        self.stop, self.lists, self.watches = stop, lists, watches
        self.versions: list[str] = []

    def pages(self) -> Iterator[tuple[list[dict[str, Any]], str]]:
        play = self.lists.pop(0)
        if isinstance(play, Exception):
            raise play
        version, items = play if isinstance(play, tuple) else ("1", play)
        yield [dict(item) for item in items], version

    def watch(self, version: str, stop: Event) -> Generator[WatchEvent, None, None]:
        self.versions.append(version)
        play = self.watches.pop(0)
        if not self.watches:
            self.stop.set()
        if isinstance(play, Exception):
            raise play
        yield from play


def _raw(name: str, uid: str = "1", version: str = "2") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": version}}


def _play(lists: list[Any], watches: list[Any]) -> tuple[list[Change[Any]], list[ApiFailure]]:
    stop = threading.Event()
    changes: list[Change[Any]] = []
    failures: list[ApiFailure] = []
    Reflector(
        Script(stop, lists, watches),
        node_from_json,
        lambda found: found.name,
        changes.append,
        lambda: None,
        failures.append,
        stop,
    ).run()
    return changes, failures


@pytest.mark.parametrize(
    "expiry",
    [
        Expired(410, "Expired", "too old"),
        [WatchEvent("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})],
    ],
    ids=["as an answer", "as an event"],
)
def test_expiry_is_followed_by_a_list_with_the_deletes_it_hid(expiry: Any) -> None:
    changes, failures = _play([[_raw("a"), _raw("b")], [_raw("b")]], [expiry, []])
    gone = [change.key for change in changes if change.new is None]
    assert gone == ["a"]
    assert not failures


def test_the_same_name_with_another_uid_is_a_delete_first() -> None:
    event = WatchEvent("MODIFIED", _raw("a", uid="2"))
    changes, _ = _play([[_raw("a", uid="1")]], [[event]])
    told = [(c.old and c.old.uid, c.new and c.new.uid) for c in changes]
    assert told == [(None, "1"), ("1", None), (None, "2")]


def test_a_list_older_than_what_was_heard_before_it_goes_back_in_time() -> None:
    """etcd was restored. What is in it may be older than some write of ours without that."""
    heard = WatchEvent("BOOKMARK", _raw("", version="50"))
    expired = WatchEvent("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})
    lists = [("9", "8"), ("60", "55"), ("20", "19"), ("21", "21")]
    changes, _ = _play(
        [(at, [_raw("a", version=version)]) for at, version in lists],
        [[heard, expired], [expired], [expired], []],
    )
    assert [(c.new and c.new.version, c.restored) for c in changes] == [
        ("8", False),
        ("55", False),
        ("19", True),
        ("21", False),
    ]


def test_a_list_that_was_asked_for_is_tried_until_it_is_read() -> None:
    """A new leader waits for it before it acts: a failure must not make it wait for ever."""
    stop = threading.Event()
    lists = [[_raw("a")], ApiFailure(503, "Unavailable", ""), [_raw("a"), _raw("b")]]
    source = Script(stop, lists, [[WatchEvent("MODIFIED", _raw("a", version="3"))], []])
    synced: list[list[str]] = []
    failures: list[ApiFailure] = []

    def changed(change: Change[Any]) -> None:
        if change.new is not None and change.new.version == "3":
            reflector.ask_relist()  # as a process that has just become the leader does

    reflector = Reflector(
        source,
        node_from_json,
        lambda found: found.name,
        changed,
        lambda: synced.append(sorted(reflector.items)),
        failures.append,
        stop,
    )
    reflector.run()
    assert synced == [["a"], ["a", "b"]]
    assert [failure.status for failure in failures] == [503]


def test_what_is_listed_again_as_it_was_is_kept_once() -> None:
    """Others hold on to the object that is known: thousands of nodes would be there twice."""
    store = ObjectStore(node_from_json, lambda found: found.name, lambda _: None)
    for version in ("1", "2"):
        before, listing = dict(store.items), store.listing(lambda _: False)
        listing.add([_raw("same"), _raw("other", version=version)])
        store.replace(listing)
    assert store.items["same"] is before["same"]
    assert store.items["other"].version == "2"


def test_a_broken_watch_continues_after_what_it_reported() -> None:
    """Not from where it began: a pause that is minutes old would be lifted by older news."""
    stop = threading.Event()

    def broken() -> Iterator[WatchEvent]:
        yield WatchEvent("MODIFIED", _raw("a", version="3"))
        yield WatchEvent("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
        raise ApiFailure(0, "Reset", "")

    source = Script(stop, [[_raw("a")], ("9", [_raw("a", version="3")])], [broken(), []])
    nothing = (lambda _: None, lambda: None, lambda _: None)
    Reflector(source, node_from_json, lambda found: found.name, *nothing, stop).run()
    assert source.versions[1:] == ["9"]


@pytest.mark.parametrize("ends", ["an ERROR event", "a callback that fails", "no version"])
def test_a_watch_is_closed_before_its_end_is_reported(ends: str) -> None:
    """Whoever still refers to it: its connection must not stay open until it is collected."""
    stop, order = threading.Event(), list[str]()

    def watching() -> Generator[WatchEvent, None, None]:
        raw: dict[str, Any] = (
            {"code": 500, "reason": "Broken"} if ends == "an ERROR event" else _raw("b")
        )
        if ends == "no version":
            del raw["metadata"]["resourceVersion"]
        try:
            yield WatchEvent("ERROR" if ends == "an ERROR event" else "ADDED", raw)
        finally:
            order.append("closed")

    def changed(change: Change[Any]) -> None:
        if change.key == "b":
            raise ValueError("our bug")

    def failed(_: ApiFailure) -> None:
        order.append("reported")
        stop.set()

    class Kept(Script):
        kept = watching()

        def watch(self, version: str, stop: Event) -> Generator[WatchEvent, None, None]:
            return self.kept

    source = Kept(stop, [[_raw("a")]], [])
    key, synced = (lambda found: found.name), (lambda: None)
    Reflector(source, node_from_json, key, changed, synced, failed, stop).run()
    assert order == ["closed", "reported"]


def _until_broken(failure: ApiFailure | None) -> Iterator[WatchEvent]:
    yield WatchEvent("MODIFIED", _raw("a", version="30"))
    if failure is not None:
        raise failure


_RESET = ApiFailure(0, "Reset", "connection reset")


@pytest.mark.parametrize(
    ("failure", "lasted"),
    [
        (_RESET, 1.0),
        (_RESET, 259.0),
        (ApiFailure(503, "Unavailable", "starting"), 1.0),
        (ApiFailure(401, "Unauthorized", ""), 1.0),
        (None, 1.0),
        (None, 239.0),
    ],
    ids=["cut off", "cut off late", "refused", "no token", "ended early", "ended a bit early"],
)
def test_after_a_watch_that_broke_a_server_that_went_back_in_time_is_read_again(
    failure: ApiFailure | None, lasted: float
) -> None:
    """A watch from a version that is to come tells nothing of what there is before it."""
    stop, clock = threading.Event(), [0.0]
    runtime = FakeRuntime(pauses=0.0)
    runtime.clock = lambda: clock[0]

    def broken() -> Iterator[WatchEvent]:
        clock[0] += lasted
        yield from _until_broken(failure)

    restored = ("21", [_raw("b", uid="2", version="20")])
    lists = [("20", [_raw("a", version="19")]), ApiFailure(0, "Reset", ""), restored, restored]
    source = Script(stop, lists, [broken(), []])
    changes: list[Change[Any]] = []
    Reflector(
        source,
        node_from_json,
        lambda found: found.name,
        changes.append,
        lambda: None,
        lambda _: None,
        stop,
        runtime=runtime,
    ).run()
    assert source.versions == ["20", "21"]
    told = [(c.key, c.new and c.new.version, c.restored) for c in changes]
    assert told == [
        ("a", "19", False),
        ("a", "30", False),
        ("a", None, True),
        ("b", "20", True),
    ]


def _after_a_cut(listed: list[dict[str, Any]]) -> tuple[list[str], list[Change[Any]]]:
    """A watch is cut off at version 30, and all is at 40 by then. Returns the versions that were
    watched from, and the changes after those of the first watch."""
    stop, changes = threading.Event(), list[Change[Any]]()
    again = ("40", listed)
    source = Script(
        stop, [("20", [_raw("a", version="19")]), again, again], [_until_broken(_RESET), []]
    )
    nothing = (lambda: None, lambda _: None)
    Reflector(
        source, node_from_json, lambda found: found.name, changes.append, *nothing, stop
    ).run()
    return source.versions, changes[2:]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (_raw("a", version="12"), [("a", "12", True)]),
        (_raw("a", version="25"), [("a", "25", True)]),
        ({"metadata": NODE["metadata"] | {"resourceVersion": "30"}}, [("a", "30", True)]),
        (_raw("b", uid="2", version="25"), [("a", None, True), ("b", "25", True)]),
    ],
    ids=["as it was", "changed since", "changed since in the same version", "created since"],
)
def test_a_server_that_went_back_and_has_caught_up_is_read_again(
    found: dict[str, Any], told: list[tuple[str, str | None, bool]]
) -> None:
    """A watch from our version would never tell of what it holds from before that."""
    versions, changes = _after_a_cut([found])
    assert versions == ["20", "40"]
    assert [(c.key, c.new and c.new.version, c.restored) for c in changes] == told


@pytest.mark.parametrize("found", [_raw("a", version="12"), _raw("b", uid="2", version="25")])
def test_a_list_that_was_needed_anyway_shows_that_the_server_went_back_and_caught_up(
    found: dict[str, Any],
) -> None:
    """Here the watch expired; what was written over it before counts for nothing."""
    heard = WatchEvent("MODIFIED", _raw("a", version="30"))
    expired = WatchEvent("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})
    lists = [("20", [_raw("a", version="19")]), ("40", [found])]
    changes, _ = _play(lists, [[heard, expired], []])
    assert {(change.key, change.restored) for change in changes[2:]} == {
        ("a", True),
        (found["metadata"]["name"], True),
    }


def test_a_list_that_was_needed_anyway_tells_what_changed_since() -> None:
    heard = WatchEvent("MODIFIED", _raw("a", version="30"))
    expired = WatchEvent("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})
    later = [_raw("a", version="31"), _raw("b", uid="2", version="40")]
    changes, _ = _play([("20", [_raw("a", version="19")]), ("40", later)], [[heard, expired], []])
    assert [(c.key, c.restored) for c in changes[2:]] == [("a", False), ("b", False)]


def test_after_a_watch_that_broke_what_is_yet_to_be_told_costs_no_read() -> None:
    """Nor does what cannot be read, or has no version."""
    unreadable = {"metadata": {"uid": "3", "resourceVersion": "25"}}
    later = [_raw("a", version="31"), _raw("b", uid="2", version="40"), unreadable]
    for listed in ([_raw("a", version="30")], later, [_raw("a", version="")], []):
        assert _after_a_cut(listed) == (["20", "30"], [])


def test_a_watch_that_ends_when_it_should_costs_no_read() -> None:
    stop, clock = threading.Event(), [0.0]
    runtime = FakeRuntime(pauses=0.0)
    runtime.clock = lambda: clock[0]

    def ordinary() -> Iterator[WatchEvent]:
        clock[0] += 240.0
        yield WatchEvent("BOOKMARK", _raw("", version="30"))

    source = Script(stop, [("20", [_raw("a")])], [ordinary(), []])
    nothing = (lambda _: None, lambda: None, lambda _: None)
    Reflector(
        source, node_from_json, lambda found: found.name, *nothing, stop, runtime=runtime
    ).run()
    assert source.versions == ["20", "30"]


def test_a_broken_watch_is_reported_and_resumed() -> None:
    lists = [[_raw("a")], [_raw("a")]]
    changes, failures = _play(lists, [ApiFailure(0, "Reset", ""), []])
    assert [failure.reason for failure in failures] == ["Reset"]
    assert len(changes) == 1


class Endless:
    """A source whose watches last until they are closed; `closed` counts how often they were."""

    def __init__(self) -> None:
        self.watching, self.ended = threading.Event(), threading.Event()
        self.failure: ApiFailure | None = ApiFailure(503, "Unavailable", "")
        self.names: list[str] = []
        self.closed = 0

    def pages(self) -> Iterator[tuple[list[dict[str, Any]], str]]:
        self.names.append(threading.current_thread().name)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        yield [_raw("a")], "1"

    def watch(self, version: str, stop: Event) -> Generator[WatchEvent, None, None]:
        self.ended.clear()
        self.watching.set()
        assert stop.is_set() or self.ended.wait(30)
        yield from ()

    def close(self) -> None:
        self.closed += 1
        self.watching.clear()
        self.ended.set()


def test_an_informer_has_a_thread_that_reports_failures_and_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source, stop = Endless(), threading.Event()
    lists: queue.SimpleQueue[int] = queue.SimpleQueue()
    failures: list[ApiFailure] = []
    informer: Informer[Any] = Informer(
        source,
        node_from_json,
        lambda found: found.name,
        lambda _: None,
        stop,
        thread="test",
        name="test-one",
        what="things of a test",
        on_sync=lambda: lists.put(informer.last_list.answers),
        on_failure=failures.append,
        runtime=FakeRuntime(pauses=0.01),
    )
    informer.start()
    assert lists.get(timeout=30) == 0
    assert source.names == ["test-one", "test-one"]
    assert [failure.status for failure in failures] == [503]
    assert [record.message for record in caplog.records] == [f"things of a test: {failures[0]}"]
    assert source.watching.wait(30)
    assert not informer.end_stale_watch()  # no list is wanted
    assert source.closed == 0
    wanted = informer.ask_relist()
    assert informer.end_stale_watch()
    assert lists.get(timeout=30) == wanted
    assert source.watching.wait(30)
    assert informer.silent_for < 30
    [thread] = [item for item in threading.enumerate() if item.name == "test-one"]
    informer.end()
    thread.join(30)
    assert not thread.is_alive()
    assert stop.is_set()


def test_of_the_managed_fields_only_the_cordons_owner_is_kept() -> None:
    fields: dict[str, Any] = {"f:spec": {"f:unschedulable": {}}}
    entries = [
        {"manager": "kubelet", "subresource": "status", "fieldsV1": {"f:status": {}}},
        {"manager": "argocd", "operation": "Apply", "fieldsV1": fields},
    ]
    raw = {"metadata": {"name": "n", "uid": "u", "managedFields": entries}}
    assert node_from_json(raw).unschedulable_by == "argocd"
    assert node_from_json({"metadata": {"name": "n", "uid": "u"}}).unschedulable_by == ""


@pytest.mark.parametrize(
    ("value", "until"),
    [
        ("true", None),
        ("4h", 4 * 3600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        (".5h", 1800),
        ("+90s", 90),
        ("250ms", 0.25),
        ("soon", None),  # what cannot be read is kept for ever
        ("4", None),
        ("4d", None),
        ("1h 30m", None),
        ("9" * 400 + "h", None),
    ],
)
def test_a_duration_counts_from_the_start_of_the_pod(value: str, until: float | None) -> None:
    raw = _pod()
    raw["metadata"]["annotations"] = {"karpenter.sh/do-not-disrupt": value}
    raw["status"] = {"startTime": "2026-01-01T00:00:00Z"}
    found = pod_from_json(raw)
    assert value in found.keep_reason
    started = 1767225600.0
    assert found.keep_until == (None if until is None else started + until)
    if value == "4h":
        assert found.keep_reason.endswith("=4h (until 2026-01-01T04:00:00Z)")
    del raw["status"]["startTime"]
    waiting = pod_from_json(raw)
    assert (bool(waiting.keep_reason), waiting.keep_until) == (True, None)


@pytest.mark.parametrize("value", ["0", "0s", "-4h", "false", ""])
def test_no_duration_at_all_keeps_nothing(value: str) -> None:
    raw = _pod()
    raw["metadata"]["annotations"] = {"karpenter.sh/do-not-disrupt": value}
    raw["status"] = {"startTime": "2026-01-01T00:00:00Z"}
    assert pod_from_json(raw).keep_reason == ""


def test_a_duration_does_not_count_from_before_the_pod_was_made() -> None:
    """The kubelet writes when it began with the pod, and its clock may be behind."""
    raw = _pod()
    raw["metadata"]["annotations"] = {"karpenter.sh/do-not-disrupt": "4h"}
    raw["metadata"]["creationTimestamp"] = "2026-01-01T05:00:00Z"
    raw["status"] = {"startTime": "2026-01-01T00:00:00Z"}
    assert pod_from_json(raw).keep_reason.endswith("=4h (until 2026-01-01T09:00:00Z)")
    raw["status"] = {"startTime": "2026-01-01T06:00:00Z"}
    assert pod_from_json(raw).keep_reason.endswith("=4h (until 2026-01-01T10:00:00Z)")


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00", "2026-01-01", "0000-13-01T00:00:00Z"])
def test_what_names_no_moment_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        timestamp(text)


def test_the_year_0_of_go_is_a_time() -> None:
    assert (timestamp("0000-01-01T00:00:00Z") or 0) < 0
