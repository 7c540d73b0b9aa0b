"""What a scenario shows to the outside, as text that is the same in every run.

Requests are grouped by the object that they are about (a node, a pod, the Lease, a policy, the
Events about one object) and in their order within each group: requests about different objects are
sent by different threads and may interleave in any way. Left out is what depends on the machine's
speed: watches, lists, reads of owners and mere renewals of the Lease. Of the same request several
times in a row (a retry) one is kept.

Replaced are times (`<now>`, `<now-60m>`, in minutes from the scenario's start), resourceVersions
(`<version>`), random names (`<random>`), ports (`<port>`), and in texts how
long something took or takes (`<seconds>`).
"""

from __future__ import annotations

import json
import re
import time
from calendar import timegm
from typing import Any, NamedTuple

_ISO = re.compile(r"\b20\d\d-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?Z")
_MINUTES = re.compile(r"\b20\d\d-\d\d-\d\d \d\d:\d\d(?::\d\d)?Z")
_EPOCH = re.compile(r"\b1[6-9]\d{8}(?:\.\d+)?\b")
_RANDOM = re.compile(r"\.[0-9a-f]{16}\b")
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_PORT = re.compile(r"127\.0\.0\.1:\d+")
_SECONDS = re.compile(r"\b(?:\d+m)?\d+(?:\.\d+)?s\b")
_VERSION = re.compile(r'("/metadata/resourceVersion", *"value": *|"resourceVersion": *)"[^"]*"')


class Request(NamedTuple):
    """One request that the API server answered."""

    verb: str
    path: str
    query: str
    body: Any
    status: int


class Normal:
    """Replaces what differs between two runs; times are given from `start` (Unix seconds)."""

    def __init__(self, start: float) -> None:
        self._start = start

    def text(self, text: str) -> str:
        """The text without what differs."""
        text = _ISO.sub(lambda found: self._when(_seconds(found[0])), text)
        text = _MINUTES.sub(lambda found: self._when(_seconds(found[0])), text)
        text = _EPOCH.sub(lambda found: self._when(float(found[0])), text)
        text = _PORT.sub("127.0.0.1:<port>", text)
        text = _UUID.sub("<random>", text)
        text = _SECONDS.sub("<seconds>", text)
        return _RANDOM.sub(".<random>", text)

    def json(self, value: Any) -> str:
        """Compact JSON, with sorted keys; JSON inside of strings is written as such."""
        text = json.dumps(_opened(value), ensure_ascii=False, sort_keys=True)
        return _VERSION.sub(r'\1"<version>"', self.text(text))

    def _when(self, moment: float) -> str:
        minutes = round((moment - self._start) / 60)
        return "<now>" if minutes == 0 else f"<now{minutes:+d}m>"


def _seconds(text: str) -> float:
    form = "%Y-%m-%dT%H:%M:%S" if text.count(":") == 2 else "%Y-%m-%dT%H:%M"
    plain = re.sub(r"\.\d+", "", text.replace(" ", "T").rstrip("Z"))
    return float(timegm(time.strptime(plain, form)))


def _opened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _opened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_opened(inner) for inner in value]
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def rendered(requests: list[Request], normal: Normal, ignored: str) -> str:
    """The requests as text, see the module; `ignored` is a node that is only there to be asked."""
    groups: dict[str, list[str]] = {}
    for request in requests:
        group = _group(request)
        if not group or group.endswith(f" {ignored}"):
            continue
        line = _line(request, normal)
        lines = groups.setdefault(group, [])
        if group.startswith("HealingPolicy "):
            lines.clear()
        if line and (not lines or lines[-1] != line):
            lines.append(line)
    parts = [f"{group}\n" + "".join(f"  {line}\n" for line in lines)
             for group, lines in sorted(groups.items()) if lines]  # fmt: skip
    return "\n".join(parts)


def _group(request: Request) -> str:
    """The object that a request is about, empty = it is left out."""
    parts = request.path.strip("/").split("/")
    if parts[-1] == "events" and request.verb == "POST":
        about = (request.body or {}).get("involvedObject") or {}
        where = f"{about['namespace']}/" if "namespace" in about else ""
        return f"Events about {about.get('kind')} {where}{about.get('name')}"
    if parts[:3] == ["api", "v1", "nodes"] and len(parts) > 3:
        # A read before an eviction and a write about returned pods are sent by two threads.
        return f"Node {parts[3]}" if request.verb != "GET" else f"Reads of node {parts[3]}"
    if "pods" in parts[:-1]:
        return f"Pod {parts[3]}/{parts[5]}"
    if "leases" in parts and "selfheal-remediator" in (*parts, _name(request)):
        return "Lease selfheal-remediator"
    if "healingpolicies" in parts[:-1]:
        return f"HealingPolicy {parts[-1 if parts[-1] != 'status' else -2]}"
    surges = "selfheal.dev~1surged" in str(request.body)
    return f"Deployment {parts[4]}/{parts[6]}" if surges else ""


def _name(request: Request) -> str:
    body = request.body if isinstance(request.body, dict) else {}
    return str((body.get("metadata") or {}).get("name"))


def _line(request: Request, normal: Normal) -> str:
    body = request.body
    if request.path.endswith("/events"):
        reason, message = body["reason"], normal.text(body["message"])
        return f"{body['type']} {reason}: {message}"
    if "/leases" in request.path and isinstance(body, list) and len(body) == 2:
        return ""  # a renewal
    query = f"?{request.query}" if request.query else ""
    said = f" {normal.json(body)}" if body else ""
    return f"{request.verb} {request.path}{query} -> {request.status}{said}"
