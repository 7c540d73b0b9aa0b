"""The only door to Kubernetes: configuration, authentication, connections, and raw requests.

The `kubernetes` package reads kubeconfig or the pod's service account and keeps tokens fresh;
requests and watches on the hot path go through its urllib3 pool as raw JSON. One rate budget
for the whole process, which an API server's 429 with Retry-After slows down; writes are fenced
by the Lease, and only idempotent requests are repeated.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from selfheal_remediator.config import ApiBudget
from selfheal_remediator.failures import ApiFailure, Malformed, NotLeader
from selfheal_remediator.kube import custom_resources
from selfheal_remediator.kube.informer import WatchEvent
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.placement import Terms, node_terms
from selfheal_remediator.kube.rate_limit import URGENT_WAIT, Budget
from selfheal_remediator.kube.responses import Answer, object_from, understood
from selfheal_remediator.randomness import RANDOM

FIELD_MANAGER = "selfheal-remediator"
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 30.0
#: An eviction may be retried inside the server for about 10 s; never give up on it earlier.
EVICTION_TIMEOUT = 35.0
#: Bookmarks come about once a minute: longer silence is a dead connection.
WATCH_SILENCE = 80.0
WATCH_SECONDS = (240, 300)
GET_ATTEMPTS = 3
PAGE = 100

_NODES = "/api/v1/nodes"
_PATCH = "application/json-patch+json"
_MERGE = "application/merge-patch+json"
_JSON = "application/json"


class NoCluster(Exception):
    """No usable cluster configuration; says what was looked for."""


@dataclass(frozen=True, slots=True)
class Permission:
    """One thing this process must be allowed to do; namespace empty = in the whole cluster."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        group = f".{self.group}" if self.group else ""
        where = f" in namespace {self.namespace}" if self.namespace else ""
        name = f" {self.name}" if self.name else ""
        return f"{self.verb} {resource}{group}{name}{where}"


class KubernetesApi:
    """Requests to one API server. Thread-safe.

    fence: called before each write, raises NotLeader when it must not be sent; what it returns
    names the time (a term of leadership, until a pause) in which a write has to be sent that was
    begun in it.
    on_request: told (verb, code, seconds) of each answer; code 0 = none came.
    """

    def __init__(
        self,
        configuration: Configuration,
        namespace: str,
        budget: ApiBudget,
        *,
        dry_run: bool = False,
        on_request: Callable[[str, int, float], None] | None = None,
    ) -> None:
        # Watches are opened beside the requests in flight, and a TLS connection that has to be
        # made anew costs as much processor time as seven requests.
        configuration.connection_pool_maxsize = 3 * budget.max_in_flight
        self._configuration = configuration
        self._pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
        self._host = str(configuration.host).rstrip("/")
        self.namespace = namespace
        self.dry_run = dry_run
        self.budget = Budget(budget)
        self._settled = threading.Condition()
        self._changes = 0
        self.fence: Callable[[], object] = lambda: None
        self.on_request = on_request or _ignore

    @property
    def server(self) -> str:
        """The API server's address, for people."""
        return self._host

    # -- plain requests -----------------------------------------------------------------

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
            time.sleep(RANDOM.uniform(0.05, 0.1) * 4**attempt)
        raise AssertionError("unreachable")

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: object = None,
        *,
        content_type: str = _JSON,
        timeout: float = READ_TIMEOUT,
        fenced: bool = False,
        begun: object = None,
        urgent: bool = False,
    ) -> Answer:
        """One request, sent once.

        fenced: not after the Lease was lost, or everything was stopped, which the wait for a turn
        may outlast; begun: what `fence` said when it was prepared. urgent: our Lease, which must
        not run out because the server slows down everything else.

        Raises ApiFailure with status 0 when no answer came, Malformed for a success without an
        object in it (a proxy's page is no list of nodes, and no eviction), and NotLeader.
        """
        term = begun or (self.fence() if fenced else None)
        wait = self.budget.reserve(protects=urgent or path.startswith(_NODES))
        if wait > 0:
            time.sleep(min(wait, URGENT_WAIT) if urgent else wait)
        if fenced and self.fence() != term:
            raise NotLeader  # it leads again, by what it knows now
        started = time.monotonic()
        try:
            response = self._pool.request(
                method,
                self._url(path, query),
                body=None if body is None else json.dumps(body, separators=(",", ":")),
                headers=self._headers(content_type if body is not None else None),
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=timeout),
                retries=False,
                redirect=False,
            )
        except Exception as error:
            # Not HTTPError alone: the token file may be unreadable while it is being rotated, and
            # TLS and the operating system have errors of their own.
            self.on_request(method, 0, time.monotonic() - started)
            raise ApiFailure(0, type(error).__name__, str(error)) from error
        self.on_request(method, response.status, time.monotonic() - started)
        answer = Answer(response.status, response.data, _retry_after(response.headers))
        if answer.throttled:
            self.budget.close_for(answer.retry_after or 1.0)
        if not answer.ok:
            return answer
        parsed = object_from(answer.body)
        if parsed is None:
            said = answer.body[:100].decode("utf-8", "replace")
            raise Malformed(f"{method} {path}: {answer.status} and no JSON object: {said!r}")
        return Answer(answer.status, b"", answer.retry_after, parsed)

    def write(
        self,
        method: str,
        path: str,
        body: object,
        *,
        content_type: str = _JSON,
        timeout: float = READ_TIMEOUT,
        fenced: bool = True,
        ignore_dry_run: bool = False,
        dry_run: bool = False,
    ) -> Answer:
        """A change, sent once: fenced by the Lease, with dryRun=All in dry-run mode.

        `ignore_dry_run` is for what must happen in dry-run too (our own Lease), `dry_run` for what
        is only tried. Raises NotLeader.
        """
        begun = self.fence() if fenced else None
        query = {"fieldManager": FIELD_MANAGER} if method != "DELETE" else {}
        if dry_run or (self.dry_run and not ignore_dry_run):
            query["dryRun"] = "All"
        return self.send(
            method,
            path,
            query,
            body,
            content_type=content_type,
            timeout=timeout,
            fenced=fenced,
            begun=begun,
            urgent=ignore_dry_run,
        )

    def _url(self, path: str, query: Mapping[str, str] | None) -> str:
        return f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")

    def _headers(self, content_type: str | None) -> dict[str, str]:
        headers = {"Accept": _JSON, "User-Agent": FIELD_MANAGER}
        if content_type is not None:
            headers["Content-Type"] = content_type
        # Asks each time: the package reads the token file again when it has rotated.
        token = self._configuration.get_api_key_with_prefix("authorization", alias="BearerToken")
        if token:
            headers["Authorization"] = token
        elif self._configuration.username:
            headers["Authorization"] = self._configuration.get_basic_auth_token() or ""
        return headers

    # -- nodes and pods -----------------------------------------------------------------

    def node(self, name: str) -> Json:
        """The node as it is now (a quorum read)."""
        return self.get(f"/api/v1/nodes/{quote(name)}")

    def patch_node(self, name: str, patch: list[Json], *, dry_run: bool = False) -> Answer:
        """JSON patch of a node; dry_run: it is only tried."""
        path = f"/api/v1/nodes/{quote(name)}"
        with self._changing():
            return self.write(
                "PATCH", path, patch, content_type=_PATCH, timeout=15.0, dry_run=dry_run
            )

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self._settled:
            self._changes += 1
        try:
            yield
        finally:
            with self._settled:
                self._changes -= 1
                self._settled.notify_all()

    def settle(self, seconds: float) -> bool:
        """Wait until no node is being changed and no pod evicted, for at most so long; whether
        that came true."""
        with self._settled:
            return self._settled.wait_for(lambda: self._changes == 0, seconds)

    def evict(
        self, namespace: str, name: str, uid: str, grace: int | None, *, dry_run: bool = False
    ) -> Answer:
        """Ask for the pod's eviction, if it still is the pod with this uid.

        dry_run: only whether it would be evicted; uses up no budget.
        """
        options: Json = {"preconditions": {"uid": uid}}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if self.dry_run or dry_run:
            options["dryRun"] = ["All"]
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": options,
        }
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(name)}/eviction"
        with self._changing():
            return self.write("POST", path, body, timeout=EVICTION_TIMEOUT, dry_run=dry_run)

    def delete_pod(
        self, namespace: str, name: str, uid: str, grace: int | None, *, dry_run: bool = False
    ) -> Answer:
        """Delete the pod with its own grace period (or a shorter one, never 0)."""
        options: Json = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
        }
        if grace is not None:
            options["gracePeriodSeconds"] = max(1, grace)
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(name)}"
        with self._changing():
            return self.write("DELETE", path, options, dry_run=dry_run)

    def pod(self, namespace: str, name: str) -> Json | None:
        """The pod as it is now, None = there is none; needs only the right to list."""
        path = f"/api/v1/namespaces/{quote(namespace)}/pods"
        found = Collection(self, path, {"fieldSelector": f"metadata.name={name}"})
        return next((raw for raws, _ in found.pages() for raw in raws), None)

    def claim_terms(self, namespace: str, claim: str) -> Terms | None:
        """The nodes that the claim's volume can be used on; None = any. Raises ApiFailure."""
        path = f"/api/v1/namespaces/{quote(namespace)}/persistentvolumeclaims/{quote(claim)}"
        with understood(f"claim {namespace}/{claim}"):
            name = (self.get(path).get("spec") or {}).get("volumeName")
            if not name:
                return None  # not bound: its volume is made where the pod goes
            volume = self.get(f"/api/v1/persistentvolumes/{quote(name)}")
            affinity = (volume.get("spec") or {}).get("nodeAffinity") or {}
            return node_terms(affinity.get("required"))

    def config_map(self, namespace: str, name: str) -> Json | None:
        """A ConfigMap, None = there is none of this name. Raises ApiFailure."""
        path = f"/api/v1/namespaces/{quote(namespace)}/configmaps/{quote(name)}"
        return self._get_if_there(path)

    def _get_if_there(self, path: str) -> Json | None:
        try:
            return self.get(path)
        except ApiFailure as failure:
            if failure.status == 404:
                return None
            raise

    # -- policies -----------------------------------------------------------------------

    def controller(self, namespace: str, api: str, plural: str, name: str) -> Json | None:
        """A controller of pods, None = there is none of this name. Raises ApiFailure."""
        return self._get_if_there(
            f"/apis/{api}/namespaces/{quote(namespace)}/{plural}/{quote(name)}"
        )

    def policy(self, namespace: str, name: str) -> Json:
        """One HealingPolicy. Raises ApiFailure."""
        return self.get(f"{_policies(namespace)}/{quote(name)}")

    def patch_policy_status(self, namespace: str, name: str, version: str, status: Json) -> Answer:
        """Write a policy's status, if it still is the one of this resourceVersion."""
        body = {"metadata": {"resourceVersion": version}, "status": status}
        path = f"{_policies(namespace)}/{quote(name)}/status"
        return self.write("PATCH", path, body, content_type=_MERGE)

    # -- collections --------------------------------------------------------------------

    def nodes(self) -> Collection:
        """All nodes."""
        return Collection(self, "/api/v1/nodes")

    def pods_of(self, node: str) -> Collection:
        """The pods of one node."""
        return Collection(self, "/api/v1/pods", {"fieldSelector": f"spec.nodeName={node}"})

    def pods(self) -> Collection:
        """All pods that may still need room; read in pages, never kept."""
        selector = "status.phase!=Succeeded,status.phase!=Failed"
        return Collection(self, "/api/v1/pods", {"fieldSelector": selector})

    def policies(self, namespace: str = "") -> Collection:
        """All HealingPolicies, or those of a namespace."""
        return Collection(self, _policies(namespace))

    def pods_labelled(self, namespace: str, selector: str) -> Collection:
        """The pods of a namespace (empty = of all) that a label selector takes."""
        path = f"/api/v1/namespaces/{quote(namespace)}/pods" if namespace else "/api/v1/pods"
        return Collection(self, path, {"labelSelector": selector} if selector else {})

    def pending_pods(self) -> Collection:
        """The pods that are on no node yet."""
        selector = "spec.nodeName=,status.phase=Pending"
        return Collection(self, "/api/v1/pods", {"fieldSelector": selector})

    def namespaces(self) -> Collection:
        """All Namespaces."""
        return Collection(self, "/api/v1/namespaces")

    def budgets(self) -> Collection:
        """All PodDisruptionBudgets."""
        return Collection(self, "/apis/policy/v1/poddisruptionbudgets")

    def daemon_sets(self) -> Collection:
        """All DaemonSets."""
        return Collection(self, "/apis/apps/v1/daemonsets")

    def daemon_set(self, namespace: str, name: str) -> Collection:
        """The DaemonSet of this name, if there is one; needs only the right to list."""
        path = f"/apis/apps/v1/namespaces/{quote(namespace)}/daemonsets"
        return Collection(self, path, {"fieldSelector": f"metadata.name={name}"})

    def leases(self, label_selector: str) -> Collection:
        """Leases of the whole cluster with a label."""
        path = "/apis/coordination.k8s.io/v1/leases"
        return Collection(self, path, {"labelSelector": label_selector})

    def leases_in(self, namespace: str) -> Collection:
        """All Leases of a namespace (none when there is no such namespace)."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace)}/leases"
        return Collection(self, path)

    def machines(self) -> Collection | None:
        """Cluster API's Machines, None where that API is not served. Raises ApiFailure."""
        group = "/apis/cluster.x-k8s.io"
        try:
            version = self.get(group)["preferredVersion"]["version"]
        except ApiFailure as failure:
            if failure.status == 404:
                return None
            raise
        return Collection(self, f"{group}/{version}/machines")

    def lease(self, namespace: str, name: str) -> Collection:
        """One Lease, to be watched."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace)}/leases"
        return Collection(self, path, {"fieldSelector": f"metadata.name={name}"})

    # -- permissions --------------------------------------------------------------------

    def missing(self, permissions: list[Permission]) -> list[Permission]:
        """Those of the permissions that this account does not have. Raises ApiFailure."""
        return [item for item in permissions if not self._allowed(item)]

    def _allowed(self, item: Permission) -> bool:
        attributes = {
            "verb": item.verb,
            "group": item.group,
            "resource": item.resource,
            "subresource": item.subresource,
            "namespace": item.namespace,
            "name": item.name,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = self.send("POST", path, body=body)
        if not answer.ok:
            raise answer.failure()
        with understood("the answer to a SelfSubjectAccessReview"):
            return answer.json()["status"]["allowed"] is True

    def open_watch(self, path: str, query: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """A streaming GET. Raises ApiFailure (Expired for 410)."""
        wait = self.budget.reserve(protects=path.startswith(_NODES))
        if wait > 0:
            time.sleep(wait)
        started = time.monotonic()
        try:
            response = self._pool.request(
                "GET",
                self._url(path, query),
                headers=self._headers(None),
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=WATCH_SILENCE),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except Exception as error:
            self.on_request("WATCH", 0, time.monotonic() - started)
            raise ApiFailure(0, type(error).__name__, str(error)) from error
        self.on_request("WATCH", response.status, time.monotonic() - started)
        if response.status != 200:
            try:
                body = response.read()
            except Exception as error:  # urllib3 raises a ValueError for some chunk sizes
                raise ApiFailure(response.status, type(error).__name__, str(error)) from error
            finally:
                response.release_conn()
            answer = Answer(response.status, body, _retry_after(response.headers))
            if answer.throttled:
                self.budget.close_for(answer.retry_after or 1.0)
            raise answer.failure()
        return response


class Collection:
    """One list endpoint with its selectors: the `Source` of a reflector."""

    def __init__(
        self, api: KubernetesApi, path: str, selectors: Mapping[str, str] | None = None
    ) -> None:
        self._api, self._path, self._selectors = api, path, dict(selectors or {})
        self._lock = threading.Lock()
        self._response: urllib3.BaseHTTPResponse | None = None

    def pages(self, *, cached: bool = False) -> Iterator[tuple[list[Json], str]]:
        """Pages of raw objects and the list's resourceVersion.

        cached: one page, as old as the server's watch cache (resourceVersion=0); only where a
        later guard makes staleness harmless.
        """
        query = dict(self._selectors)
        if cached:
            query["resourceVersion"] = "0"
        else:
            query["limit"] = str(PAGE)
        while True:
            raw = self._api.get(self._path, query)
            items, version, token = _page(raw, self._path)
            yield items, version
            if not token:
                return
            if token == query.get("continue"):
                raise Malformed(f"list {self._path} goes on from where it was already")
            query["continue"] = token

    def watch(self, version: str, stop: threading.Event) -> Iterator[WatchEvent]:
        """Events since `version`, bookmarks included, until the server or `close` ends it."""
        query = {
            **self._selectors,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(RANDOM.randint(*WATCH_SECONDS)),
        }
        response = self._api.open_watch(self._path, query)
        with self._lock:
            self._response = response
        try:
            # `close` may have come before there was anything to close.
            for line in _lines(response) if not stop.is_set() else ():
                if stop.is_set():
                    return
                yield _event(line)
        except (urllib3.exceptions.HTTPError, ValueError, OSError) as error:
            if stop.is_set():
                return
            raise ApiFailure(0, type(error).__name__, f"watch {self._path}: {error}") from error
        finally:
            with self._lock:
                self._response = None
            response.close()

    def close(self) -> None:
        """End a watch that runs in another thread."""
        with self._lock:
            if self._response is not None:
                try:
                    self._response.shutdown()
                except (OSError, RuntimeError, ValueError):
                    # It ended by itself in this moment: nothing is left to be closed.
                    return


def _policies(namespace: str) -> str:
    group = f"/apis/{custom_resources.GROUP}/{custom_resources.VERSION}"
    place = f"/namespaces/{quote(namespace)}" if namespace else ""
    return f"{group}{place}/{custom_resources.PLURAL}"


def _ignore(_verb: str, _code: int, _seconds: float) -> None:
    """Nobody counts the requests."""


def _page(raw: Json, path: str) -> tuple[list[Json], str, str]:
    """Objects, resourceVersion and where to go on (empty = that was all) of a list."""
    with understood(f"list {path}"):
        items, meta = raw["items"], raw["metadata"]
        version, token = meta["resourceVersion"], meta.get("continue") or ""
        if not isinstance(version, str) or not version or not isinstance(token, str):
            raise TypeError(f"resourceVersion {version!r}, continue {token!r}")
        if items is not None and not isinstance(items, list):
            raise TypeError(f"items is {type(items).__name__}")
    return items or [], version, token


_EVENTS = ("ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR")


def _event(line: bytes) -> WatchEvent:
    raw = object_from(line)
    if raw is None or raw.get("type") not in _EVENTS or not isinstance(raw.get("object"), dict):
        raise Malformed(f"an event of a watch: {line[:100].decode('utf-8', 'replace')!r}")
    return WatchEvent(raw["type"], raw["object"])


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(65536, decode_content=True):
        pieces = (rest + chunk).split(b"\n")
        rest = pieces.pop()
        for piece in pieces:
            if piece:
                yield piece


def _retry_after(headers: Mapping[str, str]) -> float | None:
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
    try:
        now = parsedate_to_datetime(headers.get("Date", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        now = time.time()
    return max(0.0, at - now)


def load_configuration(
    kubeconfig: Path | None = None, context: str | None = None
) -> tuple[Configuration, str]:
    """Access to a cluster, and the namespace it is used from.

    The given kubeconfig, else the pod's service account, else the default kubeconfig.
    Raises NoCluster.
    """
    configuration = Configuration()
    service_account = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    try:
        if kubeconfig is None and context is None and service_account.exists():
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return configuration, service_account.read_text(encoding="utf-8").strip()
        load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(kubeconfig) if kubeconfig else None,
            context=context,
            client_configuration=configuration,
        )
    except (ConfigException, OSError) as error:
        where = str(kubeconfig) if kubeconfig else "KUBECONFIG, ~/.kube/config or a pod's account"
        raise NoCluster(f"no cluster to work with ({where}): {error}") from error
    if not urlsplit(str(configuration.host)).hostname:
        raise NoCluster(f"the kubeconfig names no server: {configuration.host!r}")
    return configuration, "default"
