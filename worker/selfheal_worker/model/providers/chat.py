"""What all chat models have in common: how they are called, and what their failures mean.

LangChain's own structured output is not used: it takes more than twice the CPU per call, and hides
errors that matter here.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx

from selfheal_worker.logs import say
from selfheal_worker.model import context, finish_reasons
from selfheal_worker.model.call_network import CallBackend, bind
from selfheal_worker.model.causes import causes, with_own_causes
from selfheal_worker.model.chat_replies import content_of, cut_off, usage_of
from selfheal_worker.model.errors import (
    BadOutputError,
    ContentFilteredError,
    ModelError,
    ModelUnavailableError,
    TransientError,
)
from selfheal_worker.model.failure_classes import OVERLOADED, Refusal, explain_refusal
from selfheal_worker.model.load_time import LoadTime
from selfheal_worker.model.negotiation import text_of
from selfheal_worker.model.provider import (
    Answer,
    ModelConfig,
    brief,
    without_userinfo,
)
from selfheal_worker.model.rate_limit_headers import pause_asked
from selfheal_worker.model.token_counts import without_bad_counts
from selfheal_worker.model.turns import keep_pause
from selfheal_worker.runtime import REAL, Runtime
from selfheal_worker.task import prompt

T = TypeVar("T")

WARM_UP_TEXT = "Thank you, this works very well."
# A time-out of 0 would be none at all.
_SHORTEST_WAIT = 0.01
_LONGEST_CONNECT = 5.0
# Of all that a server sends in answer to one call, and of what is unpacked from it.
_MOST_BYTES = 4 << 20
# Of a version that a server reports: results and metrics carry it.
_LONGEST_NAME = 200
# A server that vanished (its node died) is detected in seconds, however long a call may
# take: its kernel does not answer. One that thinks does.
_SILENCE = 15
_WATCHED = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)] + [
    (socket.IPPROTO_TCP, option, value)
    for name, value in (
        ("TCP_KEEPIDLE", _SILENCE // 3),
        ("TCP_KEEPINTVL", _SILENCE // 3),
        ("TCP_KEEPCNT", 2),
        ("TCP_USER_TIMEOUT", _SILENCE * 1000),
    )
    if (option := getattr(socket, name, None)) is not None
]


class Model(Protocol):
    """What is used of a LangChain runnable."""

    def invoke(self, input: Any, /) -> Any:
        """The model's message in answer to a conversation."""


class _OfThread(Generic[T]):
    """An attribute of `Call` that each thread has for itself."""

    def __init__(self, default: T) -> None:
        self._default = default
        self._name = ""

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, call: Call, _: type) -> T:
        value: T = getattr(call.of_thread, self._name, self._default)
        return value

    def __set__(self, call: Call, value: T) -> None:
        setattr(call.of_thread, self._name, value)


class Call:
    """State of the thread's current call: its deadline, the pause that the server requested, and
    the bytes that came. Each thread has its own."""

    deadline = _OfThread(0.0)
    pause: _OfThread[float | None] = _OfThread(None)
    received = _OfThread(0)

    def __init__(self, runtime: Runtime = REAL) -> None:
        self.of_thread = runtime.local()
        self._now = runtime.monotonic

    def left(self) -> float:
        """Seconds until the deadline; 0 or less where it has passed."""
        return self.deadline - self._now()

    def took(self, size: int) -> None:
        """Count what came. Raises TransientError where a server sends without end."""
        self.received += size
        if self.received > _MOST_BYTES:
            raise _too_large()


class Http:
    """Settings for an httpx client whose time-outs end with the call's deadline."""

    def __init__(self, config: ModelConfig) -> None:
        self.call = Call(config.runtime)
        self._unix = config.runtime.time
        self._where = config.setting("base_url")
        self.closed = False
        self.closers: list[Callable[[], None]] = []
        # As many as there are threads, and some for the probe: httpx's default of 20 kept
        # connections breaks under more threads than that.
        connections = config.concurrency + 2
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self.settings: dict[str, Any] = {
            "timeout": httpx.Timeout(
                config.deadline, connect=min(_LONGEST_CONNECT, config.deadline)
            ),
            "limits": limits,
            # A key is for the server that the settings name, and a POST would become a GET.
            "follow_redirects": False,
            "event_hooks": {"request": [self._before_request], "response": [self._answered]},
        }
        self._backend = (config.network or CallBackend)(self.call, _WATCHED)

    def bind(self, client: httpx.Client) -> None:
        """Have a client's connections end with the calls, and all of them with the worker."""
        bind(client, self._backend)
        self.closers.append(client.close)

    def _before_request(self, request: httpx.Request) -> None:
        if self.closed:
            raise httpx.RequestError("the worker is stopping", request=request)
        left = max(_SHORTEST_WAIT, self.call.left())
        connect = min(_LONGEST_CONNECT, left)
        request.extensions["timeout"] = httpx.Timeout(left, connect=connect).as_dict()
        self.call.received = 0

    def _answered(self, response: httpx.Response) -> None:
        self.call.pause = _pause(response, self._unix())
        if response.has_redirect_location:
            raise redirected(response.status_code, self._where, response.headers["location"])
        whole = _is_json(response)
        if whole or response.is_error:
            content = _unpacked(response)
            response._content = without_bad_counts(content) if whole else content


class Chat:
    """A chat model behind LangChain. Subclasses say how it is built, and may know its version."""

    #: Whether the version is found in another way than from the names in answers.
    _own_version = False

    def __init__(
        self, provider: str, name: str, config: ModelConfig, chat: Model, where: str, http: Http
    ) -> None:
        self.name = provider
        self.model = name
        self.version = ""
        self._config = config
        self._chat = chat
        self._where = without_userinfo(where)
        self._before = prompt.before(config.task)
        self._http = http
        self._runtime = config.runtime
        self._load_time = LoadTime()
        self._quoted = ""
        #: What the server reads at once, in tokens; None where that is not known.
        self.context_tokens: int | None = None

    @property
    def abandoned_calls(self) -> int:
        """Calls past their deadline that still run in the client library."""
        return int(getattr(self._chat, "abandoned", 0))

    def warm_up(self) -> None:
        """Have the server load the model; its first answer may say which version it is.

        A server such as Ollama gives a load up when its client goes away: with a call's deadline
        alone a model that loads for longer would never be there. No message waits for it. One that
        did not answer the last time may have to be loaded again.
        """
        load, seconds = self._load_time, self._config.deadline
        if not load.loaded:
            seconds = max(seconds, load.seconds())
        messages = [*self._before, prompt.question(self._config.task, WARM_UP_TEXT)]
        begun = self._runtime.monotonic()
        try:
            answer = self._ask(messages, begun + seconds, ours=True)
        except BaseException:
            load.failed(late=self._runtime.monotonic() >= begun + seconds - _SHORTEST_WAIT)
            raise
        keep_pause(answer.pause)
        load.succeeded(self._runtime.monotonic() - begun)
        self._quoted = ""

    def analyse(self, text: str, deadline: float) -> Answer:
        """Call the model with text."""
        return self._ask([*self._before, prompt.question(self._config.task, text)], deadline)

    def repair(self, text: str, reply: str, problem: str, deadline: float) -> Answer:
        """Call it again, with the problem of the first answer."""
        return self._ask(prompt.repair_request(self._config.task, text, reply, problem), deadline)

    def close(self) -> None:
        """No call begins any more, and the connections of those under way are closed."""
        self._http.closed = True
        for close in self._http.closers:
            close()

    def _ask(
        self, messages: Sequence[prompt.Message], deadline: float, *, ours: bool = False
    ) -> Answer:
        if self._runtime.monotonic() >= deadline:
            raise TransientError("no time is left for the call")
        self._http.call.deadline = deadline
        self._http.call.pause = None
        version = self.version
        try:
            reply = with_own_causes(self._chat.invoke, list(messages))
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 any exception is raised as one of ours
            if (cut := cut_off(error)) is not None:
                return cut
            if ours:
                self._quote(error)
            raise self._failure(error) from None
        if (no_answer := finish_reasons.problem(reply)) is not None:
            raise no_answer
        metadata = getattr(reply, "response_metadata", None) or {}
        reported = self._reported(metadata)
        fingerprint = metadata.get("system_fingerprint")
        return Answer(
            content_of(reply, self._config.task.name),
            usage_of(getattr(reply, "usage_metadata", None)),
            self._http.call.pause,
            version=version if reported is None else reported,
            fingerprint=fingerprint[:_LONGEST_NAME] if isinstance(fingerprint, str) else "",
        )

    def _reported(self, metadata: Mapping[str, Any]) -> str | None:
        """Some servers say in each answer which version it was: gpt-x-2026-01-31 for gpt-x.

        None where an answer says nothing. The last one is the provider's version.
        """
        reported = metadata.get("model_name") or metadata.get("model")
        if self._own_version or not isinstance(reported, str):
            return None
        # LangChain's own names begin with the provider's: ollama:gpt-x.
        if reported in (self.model, self.model.partition(":")[2]):
            reported = ""
        self.version = reported[:_LONGEST_NAME]
        return self.version

    def _quote(self, error: Exception) -> None:
        """Log the server's message about our warm-up text; once for the same message."""
        status, body = refusal_of(error) or (0, "")
        message = brief(ValueError(text_of(body)), self._config) if body else ""
        if message and message != self._quoted:
            self._quoted = message
            say(
                logging.WARNING,
                "model server refused the warm-up text",
                server=self._where,
                status=status,
                message=message,
            )

    def _failure(self, error: Exception) -> ModelError:
        return explain(error, self._where, self.model, self._http.call.pause, self._runtime.time())


def tokens_to_request(config: ModelConfig) -> int:
    """The context to request from a server: what the longest text needs, up to the maximum."""
    wanted = context.tokens_wanted(
        prompt_bytes=prompt.size(config.task),
        text_bytes=config.max_text_bytes,
        output_tokens=config.max_output_tokens,
    )
    return min(wanted, config.context_tokens or context.DEFAULT_TOKENS)


def explain(
    error: Exception,
    where: str,
    model: str,
    pause: float | None = None,
    now: float | None = None,
) -> ModelError:
    """What an exception of a client library means. Never quotes what may contain the text.

    now: Unix seconds, by default the machine's.

    The libraries have no common base; they agree on `status_code`, on `response`, and on raising
    from httpx's errors.
    """
    chain = causes(error)
    if (ours := next((one for one in chain if isinstance(one, ModelError)), None)) is not None:
        return ours
    if (refusal := refusal_of(error)) is None:
        return _unanswered(error, chain, where)
    status, body = refusal
    headers = next((h for one in chain if (h := _headers(one)) is not None), {})
    now = REAL.time() if now is None else now
    asked = pause if pause is not None else retry_after(headers, status, now)
    return explain_refusal(Refusal(status, where, model, asked, body), now)


def _unanswered(error: Exception, chain: Sequence[BaseException], where: str) -> ModelError:
    """What an exception means that is no refusal of the server's."""
    tls = next((one for one in chain if isinstance(one, ssl.SSLError)), None)
    if tls is not None:
        return not_trusted(tls, where)
    kinds = {name for one in chain for name in _kinds(one)}
    if kinds & {"LocalProtocolError", "UnicodeEncodeError"}:
        return ModelUnavailableError(
            f"the request to {where} cannot be sent: "
            "a header contains characters that HTTP does not allow; "
            "check the API key and the headers in the model's options"
        )
    if "ProxyError" in kinds:
        return ModelUnavailableError(f"the proxy made no connection to {where}")
    if _is_filtered(error, kinds):
        return ContentFilteredError("the server filtered the answer (content_filter)")
    return _broken(error, kinds, where)


def not_trusted(error: ssl.SSLError, where: str) -> ModelUnavailableError:
    """What a failure in TLS means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return ModelUnavailableError(
            f"the certificate of {where} is not trusted: {error.verify_message}; "
            "SSL_CERT_FILE names the bundle with its CA"
        )
    reason = (error.reason or type(error).__name__).replace("_", " ").lower()
    return ModelUnavailableError(
        f"{where} failed in TLS: {reason}; check that the port speaks TLS (https or http)"
    )


def redirected(status: int, where: str, target: str) -> ModelUnavailableError:
    """What a redirect means; where: the setting with the URL, target: the Location header."""
    parts = urlsplit(target)
    host = parts.netloc.rpartition("@")[2]
    url = f"{parts.scheme}://{host}{parts.path}" if host else parts.path
    return ModelUnavailableError(
        f"the model's server redirects to {url[:200]} ({status}), which is not followed; set "
        f"{where} to the URL that the model has there"
    )


def refusal_of(error: Exception) -> tuple[int, object] | None:
    """The status and the body of an HTTP refusal, where an exception is one."""
    chain = causes(error)
    status = next((s for one in chain if (s := _status(one)) is not None), None)
    if status is None:
        return _error_in_a_reply(error)
    return status, next((b for one in chain if (b := _body(one)) is not None), "")


def _is_filtered(error: Exception, kinds: set[str]) -> bool:
    """OpenAI's client, and LangChain's for Azure, raise what a reply says of a filter."""
    azure = isinstance(error, ValueError) and "content filter being triggered" in str(error)
    return azure or "ContentFilterFinishReasonError" in kinds


def _error_in_a_reply(error: Exception) -> tuple[int, object] | None:
    """The code and the error that a server put into a reply of status 200.

    OpenRouter does, once its headers are sent
    (https://openrouter.ai/docs/api-reference/errors-and-debugging); LangChain raises it as it is.
    """
    body = error.args[0] if isinstance(error, ValueError) and error.args else None
    if not isinstance(body, Mapping):
        return None
    code = str(body.get("code") or body.get("status") or "")
    return (int(code) if re.fullmatch(r"[45]\d\d", code) else 500), {"error": dict(body)}


def _broken(error: Exception, kinds: set[str], where: str) -> ModelError:
    """What an exception without a status means; kinds: the names of its and its causes' classes."""
    if kinds & {"ConnectError", "ConnectTimeout", "ConnectionRefusedError"}:
        return ModelUnavailableError(f"no answer from {where}")
    if any("timeout" in kind.lower() for kind in kinds):
        return TransientError("the model did not answer before the deadline")
    if kinds & {"HTTPError", "RequestError", "TransportError"}:
        return TransientError("the call was aborted")
    if "ConnectionError" in kinds:
        return ModelUnavailableError(f"no answer from {where}")
    if isinstance(error, ValueError | TypeError | KeyError | AttributeError | RecursionError):
        # Half an HTTP body, or JSON that is no chat reply.
        return BadOutputError(f"not a chat reply: {type(error).__name__}")
    return TransientError(f"the call failed: {type(error).__name__}")


def _pause(response: httpx.Response, now: float) -> float | None:
    """The pause that an answer requests: an error by Retry-After, any answer by its quota."""
    if response.is_error or any("ratelimit" in name.replace("-", "") for name in response.headers):
        overloaded = response.status_code in OVERLOADED
        refused = response.is_error
        return pause_asked(response.headers, now, refused=refused, overloaded=overloaded)
    return None


def _too_large() -> TransientError:
    return TransientError(f"the server sent more than {_MOST_BYTES >> 20} MiB for one call")


def _unpacked(response: httpx.Response) -> bytes:
    """A whole body. A compressed one can have a thousand times the size of what was sent."""
    content = bytearray()
    for part in response.iter_bytes():
        content += part
        if len(content) > _MOST_BYTES:
            raise _too_large()
    return bytes(content)


def _is_json(response: httpx.Response) -> bool:
    """Whether it comes in one piece: a stream of events or lines has a type of its own."""
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower() == "application/json"


def _kinds(error: BaseException) -> list[str]:
    """By name, because there are two httpx in use, and clients of neither."""
    return [kind.__name__ for kind in type(error).__mro__]


def retry_after(headers: Mapping[str, str], status: int, now: float) -> float | None:
    """Seconds that the headers of a refusal request."""
    return pause_asked(headers, now, refused=True, overloaded=status in OVERLOADED)


def _status(error: BaseException) -> int | None:
    for holder in (error, getattr(error, "response", None)):
        status = getattr(holder, "status_code", None)
        # Ollama's client says -1 where it had no answer; 200 with half a body is no refusal.
        if isinstance(status, int) and status >= 300:
            return status
    return None


def _headers(error: BaseException) -> Mapping[str, str] | None:
    headers = getattr(getattr(error, "response", None), "headers", None)
    return headers if isinstance(headers, Mapping) else None


def _body(error: BaseException) -> object:
    """The server's message, as the client libraries keep it; only for the classification."""
    body = getattr(error, "body", None) or getattr(error, "error", None)
    if body:
        return body
    try:
        return getattr(getattr(error, "response", None), "content", None)
    except Exception:  # noqa: BLE001 a response that was not read has no content
        return None
