"""An API server with faults: what a real one, its etcd, its webhooks and its caches do at times.

Faults of the connection (slow, cut, lost answers) belong to who carries the requests. Here are
those of the server: flow control, errors of etcd, lists that expire, a token that is not accepted,
somebody else who is always faster, admission webhooks, and a watch cache that falls behind.

Consistent reads are never stale in Kubernetes; what may be old are lists with resourceVersion=0
and watches (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions). The
three patterns of Sieve (OSDI '22) are `fall_behind` (stale), `skip_states` (unobserved) and faults
between the requests of one change (intermediate), which any failing write makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate

from tests.simulation.cluster import statuses
from tests.simulation.cluster.api_server import ApiServer
from tests.simulation.cluster.messages import Answer, Json, Request, Response
from tests.simulation.cluster.resources import place_of
from tests.simulation.cluster.statuses import Refused
from tests.simulation.cluster.store import Backup
from tests.simulation.cluster.watches import Watch, WatchStream

Matches = Callable[[Request], bool]


def everything(_: Request) -> bool:
    """Any request."""
    return True


def writes(request: Request) -> bool:
    """What may change something."""
    return request.method != "GET"


def reads(request: Request) -> bool:
    """What changes nothing."""
    return request.method == "GET"


def evictions(request: Request) -> bool:
    """Evictions of pods."""
    return request.method == "POST" and request.path.endswith("/eviction")


def lists(request: Request) -> bool:
    """Lists, no watches."""
    if request.method != "GET" or request.watches:
        return False
    place = place_of(request.path)
    return place is not None and not place.name


def of(plural: str) -> Matches:
    """Requests about a kind."""

    def about(request: Request) -> bool:
        place = place_of(request.path)
        return place is not None and place.resource.plural == plural

    return about


def by(process: str) -> Matches:
    """Requests of a process."""
    return lambda request: request.process == process


@dataclass(slots=True)
class Fault:
    """One fault. until: virtual time; left: for how many requests more, None = for all.

    answer: what it makes of a request; None = the server answers as usual.
    """

    name: str
    until: float
    matches: Matches
    answer: Callable[[Request], Answer | None]
    left: int | None = None


class FaultyServer:
    """Stands before the API server. Each fault lasts so many seconds, and then ends by itself.

    happened: what faults did, as (virtual time, name, method, path)."""

    def __init__(self, api: ApiServer) -> None:
        self.api, self.store, self.simulation = api, api.store, api.simulation
        self.happened: list[tuple[float, str, str, str]] = []
        self._faults: list[Fault] = []
        self._behind = False
        self._behind_until = 0.0

    def handle(self, request: Request) -> Answer:
        """Answer a request, as the faults of the moment have it."""
        for fault in self._active():
            if not fault.matches(request):
                continue
            answer = self._refused_or(fault, request)
            if answer is not None:
                self._note(fault.name, request)
                return answer
        answer = self.api.handle(request)
        if self._behind and isinstance(answer, Watch):
            answer.pause()
        return answer

    def _active(self) -> Iterator[Fault]:
        self._faults = [f for f in self._faults if f.until > self.simulation.now and f.left != 0]
        return iter(tuple(self._faults))

    def _refused_or(self, fault: Fault, request: Request) -> Answer | None:
        try:
            answer = fault.answer(request)
        except Refused as refusal:
            answer = refusal.response
        if answer is not None and fault.left is not None:
            fault.left -= 1
        return answer

    def _note(self, name: str, request: Request) -> None:
        self.happened.append((self.simulation.now, name, request.method, request.path))

    def clear(self) -> None:
        """All faults end now."""
        self._faults.clear()
        self._behind_until = self.simulation.now
        self._catch_up()

    def fault(
        self,
        name: str,
        seconds: float,
        answer: Callable[[Request], Answer | None],
        matches: Matches = everything,
        times: int | None = None,
    ) -> None:
        """Any fault: see Fault."""
        until = self.simulation.now + seconds
        self._faults.append(Fault(name, until, matches, answer, times))

    # -- the server ---------------------------------------------------------------------

    def throttle(
        self,
        seconds: float,
        matches: Matches = everything,
        *,
        retry_after: int = 1,
        as_date: bool = False,
        times: int | None = None,
    ) -> None:
        """Priority and fairness refuses (apiserver's pkg/server/filters/priority-and-fairness.go
        and maxinflight.go): plain text, always with Retry-After. as_date: a proxy's form of it."""

        def answer(_: Request) -> Response:
            now = self.store.clock()
            value = formatdate(now + retry_after, usegmt=True) if as_date else str(retry_after)
            headers = {
                "Content-Type": "text/plain; charset=utf-8",
                "Retry-After": value,
                "Date": formatdate(now, usegmt=True),
                "X-Kubernetes-PF-FlowSchema-UID": "5e1f0000-0000-4000-9000-000000000001",
                "X-Kubernetes-PF-PriorityLevel-UID": "5e1f0000-0000-4000-9000-000000000002",
            }
            return Response(429, headers, b"Too many requests, please try again later.\n")

        self.fault("throttled", seconds, answer, matches, times)

    def fail(
        self,
        seconds: float,
        code: int = 500,
        matches: Matches = everything,
        *,
        after_it_took_effect: bool = False,
        times: int | None = None,
    ) -> None:
        """5xx: 500 of etcd, 503 of a server that starts, 502 and 504 of a load balancer."""

        def answer(request: Request) -> Response:
            if after_it_took_effect:
                self.api.handle(request)
            return _failure(code)

        self.fault(f"answers {code}", seconds, answer, matches, times)

    def refuse_token(self, seconds: float, matches: Matches = everything) -> None:
        """The token is not accepted for a while."""

        def answer(_: Request) -> Response:
            raise statuses.unauthorized()

        self.fault("token refused", seconds, answer, matches)

    def expire_lists(self, seconds: float, matches: Matches = lists) -> None:
        """410 for each list: a broken server or proxy."""

        def answer(_: Request) -> Response:
            raise statuses.expired("The resourceVersion for the provided list is too old.")

        self.fault("list expired", seconds, answer, matches)

    def compact(self) -> None:
        """Watches and lists can continue from no version but the present one."""
        self.store.compact()

    def interfere(
        self, seconds: float, matches: Matches = writes, *, times: int | None = None
    ) -> None:
        """Somebody else changes the object just before each change of it."""
        left = times

        def answer(request: Request) -> None:
            nonlocal left
            if left == 0:
                return
            place = place_of(request.path)
            if place is None or not place.name:
                return
            label = str(self.store.version)

            def touch(raw: Json) -> None:
                raw["metadata"].setdefault("labels", {})["model/touched"] = label

            if self.store.change(place.key, touch, "somebody-else") is not None:
                self._note("interfered", request)
                left = None if left is None else left - 1

        self.fault("interfered", seconds, answer, matches)

    # -- webhooks -----------------------------------------------------------------------

    def evictions_delete_nothing(self, seconds: float, matches: Matches = evictions) -> None:
        """A webhook changes each eviction into a dry run: it is accepted, and nothing happens."""

        def answer(request: Request) -> Answer:
            query = {**request.query, "dryRun": "All"}
            return self.api.handle(
                Request(
                    *(request.method, request.path, query, request.headers, request.body),
                    *(request.at, request.process),
                )
            )

        self.fault("eviction turned into a dry run", seconds, answer, matches)

    def deny(
        self,
        seconds: float,
        matches: Matches = evictions,
        *,
        code: int = 403,
        why: str = "no",
        retry_after: int = 0,
    ) -> None:
        """A webhook denies: with the code, and the retryAfterSeconds, of its own choice."""

        def answer(_: Request) -> Response:
            message = f'admission webhook "guard.example.com" denied the request: {why}'
            reason = {403: "Forbidden", 429: "TooManyRequests"}.get(code, "")
            raise statuses.failure(code, reason, message, retry_after=retry_after)

        self.fault("denied by a webhook", seconds, answer, matches)

    def deny_by_policy(
        self, seconds: float, matches: Matches = evictions, *, why: str = "no"
    ) -> None:
        """A ValidatingAdmissionPolicy denies: 422 with its words as the cause."""

        def answer(request: Request) -> Response:
            place = place_of(request.path)
            name, kind = (place.name, place.resource.plural) if place is not None else ("", "")
            said = f"ValidatingAdmissionPolicy 'vap' with binding 'vap' denied request: {why}"
            details = {"name": name, "kind": kind, "causes": [{"message": said}]}
            raise statuses.failure(422, "Invalid", f'{kind} "{name}" is forbidden: {said}', details)

        self.fault("denied by a policy", seconds, answer, matches)

    def webhook_unreachable(self, seconds: float, matches: Matches = evictions) -> None:
        """A webhook with failurePolicy Fail does not answer."""

        def answer(_: Request) -> Response:
            message = (
                'Internal error occurred: failed calling webhook "guard.example.com": failed to '
                'call webhook: Post "https://guard.default.svc:443/": context deadline exceeded'
            )
            causes = {"causes": [{"message": message.removeprefix("Internal error occurred: ")}]}
            raise statuses.failure(500, "InternalError", message, causes)

        self.fault("webhook unreachable", seconds, answer, matches)

    # -- watches and caches -------------------------------------------------------------

    def cut_watches(self, matches: Callable[[WatchStream], bool] = lambda _: True) -> int:
        """Connections of watches break; how many did."""
        cut = [stream for stream in list(self.api.watches) if matches(stream)]
        for stream in cut:
            stream.reset()
        return len(cut)

    def fall_behind(self, seconds: float) -> None:
        """The watch cache stands still: watches are silent, cached lists are old (stale)."""
        if not self._behind:
            self._behind = True
            self.api.watch_cache = self.store.at(self.store.version)
            for stream in self._watches():
                stream.pause()
        self._behind_until = max(self._behind_until, self.simulation.now + seconds)
        self.simulation.after(seconds, self._catch_up)

    def delay(self, plural: str, seconds: float) -> None:
        """The watch cache of one kind alone stands still: each kind has its own."""
        late = [stream for stream in self._watches() if stream.plural == plural]
        for stream in late:
            stream.pause()

        def catch_up() -> None:
            for stream in late:
                stream.resume()

        self.simulation.after(seconds, catch_up)

    def skip_states(self, seconds: float) -> None:
        """Watches are silent, then break, and must begin with a list: what was in between is never
        seen (unobserved)."""

        def end() -> None:
            self.cut_watches()
            self.store.compact()

        self.simulation.after(seconds, end)  # before the watches catch up
        self.fall_behind(seconds)

    def _catch_up(self) -> None:
        if self.simulation.now < self._behind_until:
            return
        self._behind, self.api.watch_cache = False, None
        for stream in self._watches():
            stream.resume()

    def _watches(self) -> list[Watch]:
        return [stream for stream in self.api.watches if isinstance(stream, Watch)]

    def restore(self, backup: Backup) -> None:
        """etcd is restored from a backup."""
        self._behind, self.api.watch_cache = False, None
        self.store.restore(backup)


def _failure(code: int) -> Response:
    match code:
        case 500:
            message = "etcdserver: request timed out"
            return statuses.failure(500, "", message).response
        case 503:
            return statuses.plain(503, "apiserver not ready\n").response
        case 504:
            message = "Timeout: request did not complete within the allotted timeout"
            return statuses.failure(504, "Timeout", message).response
    return Response(code, {"Content-Type": "text/html"}, b"<html>Bad Gateway</html>")
