"""A host of releases on this machine: files and an image registry, by HTTPS, with its faults."""

from __future__ import annotations

import hashlib
import io
import json
import re
import ssl
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.loopback import Handler, serving

TOKEN = "token-for-anybody"
_INDEX = "application/vnd.oci.image.index.v1+json"


def sha256(content: bytes) -> str:
    """In the form of a digest."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def tar(files: Mapping[str, bytes | None]) -> bytes:
    """A gzipped archive of these files; None makes a link to /etc/passwd."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content or b""))
    return made.getvalue()


class ReleaseHost:
    """What it has at which path, how it answers, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.cuts: dict[str, list[int]] = {}
        """For each path, after how many bytes the next answers break off."""
        self.continues = True
        """Whether it obeys Range."""
        self.asks_for_token = False
        self.asked: list[tuple[str, str, str]] = []
        """Path, Range, Authorization."""
        self.address = ""

    def publish(self, path: str, content: bytes) -> str:
        """The URL."""
        self.files[path] = content
        return f"https://{self.address}{path}"

    def publish_image(self, repository: str, layers: Mapping[str, list[bytes]]) -> tuple[str, str]:
        """An image with these layers for each architecture: its name and its index's digest."""
        manifests = []
        for architecture, tars in layers.items():
            described = [self._blob(repository, layer) for layer in tars]
            manifest = {"schemaVersion": 2, "layers": described}
            digest = self._manifest(repository, manifest)
            where = {"os": "linux", "architecture": architecture}
            manifests.append({"digest": digest, "platform": where})
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}
        return f"{self.address}/{repository}", self._manifest(repository, index)

    def downloads(self) -> list[tuple[str, str]]:
        """Path and Range of what was asked for, without the questions whether it is there."""
        return [(path, range_) for path, range_, _ in self.asked if range_ != "bytes=0-0"]

    def _manifest(self, repository: str, content: Mapping[str, Any]) -> str:
        data = json.dumps(content).encode()
        self.files[f"/v2/{repository}/manifests/{sha256(data)}"] = data
        return sha256(data)

    def _blob(self, repository: str, data: bytes) -> dict[str, Any]:
        self.files[f"/v2/{repository}/blobs/{sha256(data)}"] = data
        return {"digest": sha256(data), "size": len(data)}


def _handler(host: ReleaseHost) -> type[Handler]:
    class Answer(Handler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            wanted = self.headers.get("Range", "")
            authorization = self.headers.get("Authorization", "")
            host.asked.append((path, wanted, authorization))
            if path == "/token":
                self.reply({"token": TOKEN, "asked": query})
            elif path in host.redirects:
                self.reply(status=302, headers={"Location": host.redirects[path]})
            elif host.asks_for_token and authorization != f"Bearer {TOKEN}":
                realm = f'Bearer realm="https://{host.address}/token",service="s",scope="pull"'
                self.reply(status=401, headers={"WWW-Authenticate": realm})
            elif path not in host.files:
                self.reply(status=404)
            else:
                self._send(path, host.files[path], wanted)

        def _send(self, path: str, content: bytes, wanted: str) -> None:
            from_here = re.fullmatch(r"bytes=(\d+)-\d*", wanted) if host.continues else None
            start = int(from_here[1]) if from_here else 0
            headers = {"Content-Length": str(len(content) - start)}
            if from_here:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            whole = content[start:]
            cuts = host.cuts.get(path) if wanted != "bytes=0-0" else None
            sent = whole[: cuts.pop(0)] if cuts else whole
            self.close_connection = len(sent) < len(whole)
            self.reply(sent, 206 if from_here else 200, headers)

    return Answer


@contextmanager
def release_host(folder: Path) -> Iterator[tuple[ReleaseHost, Path]]:
    """The host, and the certificate by which it is to be trusted."""
    key, certificate = folder / "host.key", folder / "host.pem"
    subprocess.run(
        [
            *["openssl", "req", "-x509", "-nodes", "-subj", "/CN=host"],
            *["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
            *["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-days", "1"],
            *["-keyout", str(key), "-out", str(certificate)],
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    host = ReleaseHost()
    with serving(_handler(host), context) as server:
        host.address = server.address
        yield host, certificate
