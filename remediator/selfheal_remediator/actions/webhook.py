"""The step `webhook`: a signed POST to a server of the user's, which opens a ticket or repairs.

Its id names the step of the occurrence: what is sent again, by whichever leader, is one request
to a server that remembers ids. The time between two tries grows with the time since the step
began, so that no leader has to remember how often it was tried.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from selfheal_remediator.actions.sender import NotSent, Reply, Request, Send, send
from selfheal_remediator.actions.signature import UnusableSecret, secrets_from, signature
from selfheal_remediator.actions.step import StepOutcome, StepResult, StepRun
from selfheal_remediator.external_steps import WebhookSettings
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.transport import retry_after

TYPE = "selfheal.node.repair"
#: Seconds between two tries.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
#: Seconds that a server can put it off for.
LONGEST_WANTED = 3600.0
#: Of other refusals the server would say the same again.
_PASSING = (408, 429)


class WebhookStep:
    """See the module. A StepKind."""

    def __init__(self, api: KubernetesApi, settings: WebhookSettings, send: Send = send) -> None:
        self._api, self._settings, self._send = api, settings, send

    def advance(self, run: StepRun, now: float) -> StepResult:
        """Send it, once. Raises NotLeader."""
        if now >= run.deadline:
            return StepResult(StepOutcome.FAILED, "no server took the webhook in time")
        pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, now - run.began))
        try:
            request = self._request(run, now)
            where = origin(request.url)
            if run.dry_run:
                return StepResult(StepOutcome.RUNNING, f"would send a webhook to {where}")
            self._api.fence()
            reply = self._send(request)
        except _Unusable as error:
            return StepResult(StepOutcome.RUNNING, str(error), pause)
        except NotSent as error:
            return StepResult(StepOutcome.RUNNING, f"no answer from {where}: {error}", pause)
        return result_of(reply, where, now, pause)

    def _request(self, run: StepRun, now: float) -> Request:
        """Raises _Unusable."""
        settings, body, stamp = self._settings, payload(run, self._settings.labels), int(now)
        try:
            secrets = secrets_from(_content(settings.secret_file))
        except UnusableSecret as error:
            raise _Unusable(f"secretFile {settings.secret_file}: {error}") from None
        url = settings.url or _content(settings.url_file).strip()
        if not origin(url):
            raise _Unusable(f"urlFile {settings.url_file} has no URL in it")
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "selfheal-remediator",
            "webhook-id": run.occurrence,
            "webhook-timestamp": str(stamp),
            "webhook-signature": signature(secrets, run.occurrence, stamp, body),
            "Idempotency-Key": run.occurrence,
        }
        return Request(url, headers, body, settings.ca_file, settings.request_timeout)


class _Unusable(Exception):
    """A file is missing, or has not in it what it should; it may be corrected meanwhile."""


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise _Unusable(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError:
        raise _Unusable(f"{path} is not UTF-8") from None


def payload(run: StepRun, labels: tuple[str, ...]) -> bytes:
    """The body: the same at each try, but for labels and a message that changed meanwhile. Pure.

    `timestamp` is when the step began; `data.node.labels` has those of the labels that there are.
    """
    node = run.node
    data = {
        "node": {
            "name": node.name,
            "uid": node.uid,
            "bootID": run.boot_id,
            "labels": {key: node.labels[key] for key in labels if key in node.labels},
        },
        "rule": run.rule,
        "condition": run.condition,
        "reason": run.reason,
        "message": run.message,
        "occurrence": run.occurrence,
        "step": run.index,
    }
    moment = datetime.fromtimestamp(int(run.began), UTC).isoformat().replace("+00:00", "Z")
    whole = {"type": TYPE, "timestamp": moment, "data": data}
    return json.dumps(whole, separators=(",", ":")).encode()


def result_of(reply: Reply, where: str, now: float, pause: float) -> StepResult:
    """What an answer means. pause: seconds before it is tried again, unless the server names
    more. Pure."""
    said = f"{where} answered {reply.status}"
    if 200 <= reply.status < 300:
        return StepResult(StepOutcome.SUCCEEDED, said)
    if 300 <= reply.status < 400:
        return StepResult(StepOutcome.FAILED, f"{said}; redirects are not followed")
    said = ": ".join(filter(None, [said, _first_line(reply.body)]))
    if reply.status in _PASSING or reply.status >= 500:
        wanted = min(retry_after(reply.headers, now) or 0.0, LONGEST_WANTED)
        return StepResult(StepOutcome.RUNNING, said, max(pause, wanted))
    return StepResult(StepOutcome.FAILED, said)


def _first_line(body: bytes) -> str:
    lines = body.decode("utf-8", "replace").strip().splitlines()
    return "".join(one for one in (lines or [""])[0] if one.isprintable())[:200]


def origin(url: str) -> str:
    """The URL without what may be secret: scheme, host, port; empty = it is none. Pure."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host:
        return ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")
