"""Stands between a remediator and the API server, and can act at its n-th request."""

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import urllib3
import yaml

from selfheal_remediator.kube.access import load_configuration

#: Asked once at the start, before anything is done.
_PREPARATION = "selfsubjectaccessreviews"
_LEASES = "/apis/coordination.k8s.io/v1/leases?"
#: Of what it did, not part of it.
_EVENTS = "/events"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        self.server.owner.pass_on(self)

    do_POST = do_PATCH = do_DELETE = do_PUT = do_GET  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: "Proxy"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed leaves broken connections: that is the point."""


class Proxy:
    """Counts the requests that pass; calls `before(n)` and `after(n)` around the n-th one.

    before: nothing has reached the API server yet; when it returns False nothing ever will.
    after: the API server has answered, the client has not heard of it. Requests are kept in
    `seen`, but for those that say nothing new: permissions asked for, a Lease renewed again.
    alone: the namespace in which other remediators are searched for, instead of everywhere.
    changes_only: reads and Events are not counted. What was changed is in `changed`.
    """

    def __init__(
        self,
        kubeconfig: Path,
        before: Callable[[int], bool] = lambda _n: True,
        after: Callable[[int], None] = lambda _n: None,
        alone: str = "",
        *,
        changes_only: bool = False,
    ) -> None:
        configuration, _ = load_configuration(kubeconfig)
        self._upstream = str(configuration.host)
        self._pool = urllib3.PoolManager(
            ca_certs=configuration.ssl_ca_cert,
            cert_file=configuration.cert_file,
            key_file=configuration.key_file,
            maxsize=64,
        )
        self._before, self._after, self._alone = before, after, alone
        self._changes_only = changes_only
        self._lock = threading.Lock()
        self.seen: list[str] = []
        #: Requests that the API server carried out, with the uid of the object in its answer;
        #: not those of clients that ask for another format than JSON, as Helm does for Secrets.
        self.changed: list[tuple[str, str]] = []
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def kubeconfig(self, template: Path, path: Path) -> Path:
        """A kubeconfig like `template` that leads here; a token is sent on in the clear, and a
        certificate is the proxy's own.
        """
        config = yaml.safe_load(template.read_text())
        for item in config["clusters"]:
            port = self._server.server_port
            item["cluster"] = {"server": f"http://127.0.0.1:{port}"}
        path.write_text(yaml.safe_dump(config))
        return path

    def close(self) -> None:
        """No more connections."""
        self._server.shutdown()
        self._server.server_close()
        self._pool.clear()

    def pass_on(self, handler: BaseHTTPRequestHandler) -> None:
        """One request there and back."""
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        number = self._count(f"{handler.command} {handler.path}", body)
        if number and not self._before(number):
            handler.close_connection = True
            return
        headers = {
            key: value
            for key, value in handler.headers.items()
            if key.lower() in ("authorization", "accept", "content-type", "user-agent")
        }
        path = handler.path
        if self._alone and path.startswith(_LEASES):
            path = path.replace("/leases?", f"/namespaces/{self._alone}/leases?")
        answer = self._pool.request(
            handler.command,
            self._upstream + path,
            body=body or None,
            headers=headers,
            preload_content=False,
            retries=False,
            timeout=urllib3.Timeout(connect=5, read=400),
        )
        try:
            if number:
                self._after(number)
            self._answer(handler, answer)
        finally:
            answer.close()

    def _count(self, request: str, body: bytes) -> int:
        if _PREPARATION in request:
            return 0
        if self._changes_only and (request.startswith("GET ") or _EVENTS in request):
            return 0
        renewal = "/leases/" in request and body.startswith(b"[")
        with self._lock:
            if renewal and request in self.seen:
                return 0
            self.seen.append(request)
            return len(self.seen)

    def _note(self, handler: BaseHTTPRequestHandler, answer: bytes) -> None:
        uid = str((json.loads(answer).get("metadata") or {}).get("uid", ""))
        with self._lock:
            self.changed.append((f"{handler.command} {handler.path.partition('?')[0]}", uid))

    def _answer(self, handler: BaseHTTPRequestHandler, answer: urllib3.BaseHTTPResponse) -> None:
        handler.send_response(answer.status)
        for key in ("Content-Type", "Retry-After"):
            if key in answer.headers:
                handler.send_header(key, answer.headers[key])
        if "watch=true" not in handler.path:
            data = answer.read()
            is_json = answer.headers.get("Content-Type", "").startswith("application/json")
            if handler.command != "GET" and answer.status < 300 and is_json:
                self._note(handler, data)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)
            return
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for chunk in answer.stream(65536):
            handler.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")
