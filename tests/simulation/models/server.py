"""A model server at HTTP level: slots, a queue, limits, and conditions that faults change.

It speaks the dialect of a real server (`tests/pure/worker/dialects/`), in virtual time, and keeps
for each request what it did.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from selfheal_worker.task.task import Task
from tests.pure.worker.dialects.dialect import ANSWERS, Dialect, Reply, Request
from tests.simulation.models import http1, pauses, words
from tests.simulation.models.conditions import DOES, NO_CONNECTION, Condition
from tests.simulation.models.network import Connection, Failure
from tests.simulation.models.timers import Timers
from tests.simulation.models.truth import Did, Exchange
from tests.simulation.models.words import Nature

#: Ways of a usable answer: the dialects', and more.
WAYS = (*ANSWERS, "double encoded", "list", "harmony", "think in brackets", "injected")
#: Seconds after which a client gives up an address that does not answer.
_DRIP = 1.0


@dataclass(frozen=True)
class Setup:
    """How a server is made. queue: calls that may wait for a slot. seconds: for one answer, from
    and to. load: seconds to load the model. context: tokens that it reads. truncates: it cuts what
    does not fit, without a word. per_minute: requests. status, form: of its refusals. key: the
    client's, "" for any. digest: the version that it lists or reports."""

    name: str
    host: str
    dialect: type[Dialect]
    port: int = 8000
    slots: int = 4
    queue: int = 1000
    seconds: tuple[float, float] = (0.2, 1.0)
    load: float = 0.0
    context: int = 1_000_000
    truncates: bool = False
    per_minute: int | None = None
    status: int = 429
    form: str = pauses.NONE
    pause: float = 2.0
    way: str = "plain"
    digest: str = "0123456789abcdef"
    https: bool = False

    @property
    def url(self) -> str:
        """As the settings name it."""
        scheme = "https" if self.https else "http"
        return f"{scheme}://{self.host}:{self.port}{self.dialect.base}"


@dataclass(slots=True, eq=False)
class _Job:
    exchange: Exchange
    connection: Connection
    request: Request
    text: str
    over: bool = False


class ModelServer:
    """One server. natures: what each numbered text makes of it; unix: seconds."""

    def __init__(
        self,
        setup: Setup,
        timers: Timers,
        task: Task,
        seed: object,
        *,
        natures: Mapping[int, Nature] | None = None,
        unix: Callable[[], float] | None = None,
    ) -> None:
        self.setup = setup
        self.condition = Condition.UP
        self.exchanges: list[Exchange] = []
        self.dialect = setup.dialect()
        self._timers = timers
        self._task = task
        self._chance = Random(f"{seed} {setup.name}")
        self._natures = natures or {}
        self.unix = unix or (lambda: 1_800_000_000.0 + timers.now)
        self._running: set[int] = set()
        self._waiting: deque[_Job] = deque()
        self._jobs: dict[int, _Job] = {}
        self._minute: deque[float] = deque()
        self._asked: dict[int, int] = {}
        self._loaded = setup.load == 0

    # --- for the world

    @property
    def host(self) -> str:
        """Its name."""
        return self.setup.host

    @property
    def port(self) -> int:
        """Its port."""
        return self.setup.port

    @property
    def url(self) -> str:
        """As the settings name it."""
        return self.setup.url

    def become(self, condition: Condition) -> None:
        """A fault begins, or ends. Calls under way end as they would have, unless none can."""
        self.condition = condition
        if condition in (Condition.REFUSED, Condition.RESETS):
            for job in list(self._jobs.values()):
                self._finish(job, Did.FAILED)
                job.connection.end("reset")

    def change(self, **changes: Any) -> None:
        """Another number of slots, another version, another pace."""
        self.setup = replace(self.setup, **changes)
        if "digest" in changes:
            self._loaded = self.setup.load == 0
        self._begin_waiting()

    def unload(self) -> None:
        """The model has to be loaded again at the next call."""
        self._loaded = self.setup.load == 0

    def load(self) -> None:
        """Somebody has the model loaded, so that the next call need not wait for that."""
        self._loaded = True

    @property
    def version(self) -> str:
        """What an answer's result has to name."""
        digest = self.setup.digest
        return digest[:12] if _is_ollama(self.dialect) else f"m-{digest[:8]}"

    @property
    def busy(self) -> int:
        """Calls in its slots."""
        return len(self._running)

    # --- for the network

    def refuses(self) -> Failure | None:
        """Why it makes no connection now, if so."""
        if self.condition not in NO_CONNECTION:
            return None
        never = self.condition is Condition.UNREACHABLE
        return Failure(self.condition, None if never else 0.001)

    def came(self, connection: Connection) -> None:
        """Bytes have come."""
        while (raw := http1.take(connection.sent)) is not None:
            self._requested(connection, raw)

    def gone(self, connection: Connection) -> None:
        """The client has closed a connection: what it asked for is given up."""
        for job in list(self._jobs.values()):
            if job.connection is connection:
                job.exchange.left = True
                self._finish(job, job.exchange.did)

    # --- a request

    def _requested(self, connection: Connection, raw: http1.Raw) -> None:
        request = raw.read()
        text = words.text_of(request.body)
        number = len(self.exchanges)
        exchange = Exchange(self.setup.name, connection.client, number, self._timers.now)
        exchange.text, exchange.chat = words.number_of(text), bool(request.body)
        self.exchanges.append(exchange)
        job = self._jobs[number] = _Job(exchange, connection, request, text)
        if self._hindered(job):
            return
        if not exchange.chat:
            self._reply(job, self._listed(request), Did.LISTED)
        elif (refused := self.dialect.refuses(request)) is not None:
            self._reply(job, refused, Did.PARAMETER)
        elif not self._has_room():
            self._overloaded(job)
        else:
            self._waiting.append(job)
            self._begin_waiting()

    def _has_room(self) -> bool:
        now, most = self._timers.now, self.setup.per_minute
        while self._minute and self._minute[0] <= now - 60.0:
            self._minute.popleft()
        if most is not None and len(self._minute) >= most:
            return False
        if len(self._running) >= self.setup.slots and len(self._waiting) >= self.setup.queue:
            return False
        self._minute.append(now)
        return True

    def _begin_waiting(self) -> None:
        while self._waiting and len(self._running) < self.setup.slots:
            job = self._waiting.popleft()
            if job.over:
                continue
            self._running.add(job.exchange.number)
            job.exchange.began = self._timers.now
            seconds = self._chance.uniform(*self.setup.seconds)
            if not self._loaded:
                seconds += self.setup.load
            self._timers.after(seconds, lambda job=job: self._computed(job))  # type: ignore[misc]

    def _computed(self, job: _Job) -> None:
        if job.over:
            return
        self._loaded = True
        job.exchange.version = self.version
        reply, did = self._answer(job)
        if self.condition is Condition.DRIPS:
            self._drip(job, http1.response(reply), 0)
        elif self.condition is Condition.HALF:
            whole = http1.response(reply)
            job.connection.deliver(whole[: len(whole) - 20])
            self._finish(job, Did.NOT_USABLE)
            job.connection.end("closed")
        else:
            self._reply(job, reply, did)

    def _drip(self, job: _Job, whole: bytes, at: int) -> None:
        if job.over:
            return
        job.exchange.did = Did.FAILED
        job.connection.deliver(whole[at : at + 1])
        if at + 1 < len(whole):
            self._timers.after(_DRIP, lambda: self._drip(job, whole, at + 1))
        else:
            self._finish(job, Did.ANSWERED)

    def _reply(self, job: _Job, reply: Reply, did: Did) -> None:
        job.connection.deliver(http1.response(reply))
        self._finish(job, did)

    def _finish(self, job: _Job, did: Did | None) -> None:
        if job.over:
            return
        job.over = True
        job.exchange.did, job.exchange.ended = did, self._timers.now
        del self._jobs[job.exchange.number]
        self._running.discard(job.exchange.number)
        self._begin_waiting()

    # --- what it says

    def _hindered(self, job: _Job) -> bool:
        """Whether the server's condition ends a request before a slot takes it."""
        condition = self.condition
        if condition in (Condition.UP, Condition.DRIPS, Condition.HALF, Condition.GARBAGE):
            return False
        if condition is Condition.SILENT:
            job.exchange.did = Did.SILENT
        elif condition in (Condition.RESETS, *NO_CONNECTION):
            self._finish(job, Did.FAILED)
            job.connection.end("reset")
        elif condition is Condition.CLOSES:
            self._finish(job, Did.FAILED)
            job.connection.end("closed")
        elif condition is Condition.ENDLESS:
            job.connection.deliver(http1.response(Reply(200, {}), announced=6 << 20))
            job.connection.deliver(b" " * (5 << 20))
            job.exchange.did = Did.FAILED
        elif condition is Condition.OVERLOADED:
            self._overloaded(job)
        else:
            self._reply(job, self._error(condition, job.request), DOES[condition])
        return True

    def _error(self, condition: Condition, request: Request) -> Reply:
        error = self.dialect.error
        model = request.body.get("model", "m")
        quota = "You exceeded your current quota, please check your plan and billing details"
        known = {
            Condition.HTML: Reply(200, "<html><body>Welcome</body></html>"),
            Condition.WRONG_JSON: Reply(200, {"status": "ok", "choices": None, "models": None}),
            Condition.REDIRECTS: Reply(308, "", {"Location": f"https://{self.host}/v2"}),
            Condition.BAD_GATEWAY: Reply(502, "<html>502 Bad Gateway</html>"),
            Condition.NOT_LOADED: error(
                404, f"model '{model}' not found, try pulling it first", "model_not_found"
            ),
            Condition.LOADING: error(503, "Loading model"),
            Condition.REVOKED: error(401, "Incorrect API key provided", "invalid_api_key"),
            Condition.NO_QUOTA: Reply(
                429, {"error": {"message": quota, "code": "insufficient_quota"}}
            ),
        }
        return known.get(condition) or error(500, "Internal server error")

    def _overloaded(self, job: _Job) -> None:
        setup, form = self.setup, self.setup.form
        refused = self.dialect.overloaded(setup.status)
        headers = pauses.headers(form, setup.pause, self.unix())
        if form in pauses.FORMS:
            job.exchange.pause = max(0.0, setup.pause - pauses.FORMS[form].coarse)
        body = pauses.body(form, setup.pause, refused.body)
        self._reply(job, Reply(setup.status, body, headers), Did.OVERLOADED)

    def _listed(self, request: Request) -> Reply:
        if request.path != "/api/tags":
            return Reply(404, {"error": "not found"})
        return Reply(200, {"models": [{"name": "m:latest", "digest": self.setup.digest}]})

    def _answer(self, job: _Job) -> tuple[Reply, Did]:
        number, text, dialect = job.exchange.text, job.text, self.dialect
        nature = Nature.GOOD if number is None else self._natures.get(number, Nature.GOOD)
        room = self._context(job.request)
        tokens = words.tokens_of(text)
        if tokens > room and not self.setup.truncates:
            return dialect.too_long(), Did.TOO_LONG
        if nature is Nature.FILTERED:
            return dialect.filtered(), Did.FILTERED
        if nature in (Nature.FILTERED_ANSWER, Nature.DECLINED) and not _is_ollama(dialect):
            filtered = nature is Nature.FILTERED_ANSWER
            way = "filtered answer" if filtered else "declined"
            done = dialect.completed(way, job.request)
            return done, Did.FILTERED if filtered else Did.DECLINED
        if number is not None:
            self._asked[number] = self._asked.get(number, 0) + 1
        if self.condition is Condition.GARBAGE or self._says_rubbish(number, nature):
            return self._rubbish(job.request, min(tokens, room)), Did.NOT_USABLE
        made = self._usable(job.request, text, min(tokens, room))
        return made, Did.CUT if tokens > room else Did.ANSWERED

    def _says_rubbish(self, number: int | None, nature: Nature) -> bool:
        if nature is Nature.FLAKY and number is not None:
            return self._asked[number] == 1
        return nature in (Nature.NEVER_USABLE, Nature.DECLINED, Nature.FILTERED_ANSWER)

    def _context(self, request: Request) -> int:
        options = request.body.get("options")
        wanted = options.get("num_ctx") if isinstance(options, dict) else None
        return min(self.setup.context, wanted) if isinstance(wanted, int) else self.setup.context

    def _usable(self, request: Request, text: str, tokens: int) -> Reply:
        way = self.setup.way
        said = words.injected if way == "injected" else words.answer
        self.dialect.answer = said(self._task, text)
        known = way if way in ANSWERS else "plain"
        reply = self.dialect.completed(known, request)
        if (talk := words.talk(way, dict(self.dialect.answer))) is not None:
            _set_words(reply.body, talk)
        return self._signed(reply, tokens)

    def _rubbish(self, request: Request, tokens: int) -> Reply:
        self.dialect.answer = {}
        reply = self.dialect.completed("plain", request)
        _set_words(reply.body, self._chance.choice(words.UNUSABLE))
        return self._signed(reply, tokens)

    def _signed(self, reply: Reply, tokens: int) -> Reply:
        body = reply.body
        if "usage" in body and body["usage"]["prompt_tokens"]:
            body["usage"] |= {"prompt_tokens": tokens, "total_tokens": tokens + 9}
        if "prompt_eval_count" in body:
            body["prompt_eval_count"] = tokens
        if "model" in body and not _is_ollama(self.dialect):
            body["model"] = self.version
        return reply


def _is_ollama(dialect: Dialect) -> bool:
    return dialect.path == "/api/chat"


def _set_words(body: dict[str, Any], said: str) -> None:
    """Have a reply say something else, in its message or in the arguments of its tool call."""
    message = body["message"] if "message" in body else body["choices"][0]["message"]
    calls = message.get("tool_calls")
    if not calls:
        message["content"] = said
    elif "message" not in body:
        calls[0]["function"]["arguments"] = said
    else:
        calls[0]["function"]["arguments"] = {"answer": json.dumps(said)}
