"""The chart's init step has models pulled by a real Ollama, and asks nobody for what is there."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import ci.parts
from ci import ollama
from ci.ollama import Server
from tests.models.conftest import Serve
from tests.support.loopback import Handler, serving
from tests.support.rabbit import free_ports

SCRIPTS = Path(__file__).parents[2] / "chart" / "files" / "ollama"
_PATH = re.compile(r"/v2/library/([a-z0-9]+)/(manifests|blobs)/([a-z0-9:.-]+)")
_STORAGE = "/storage/"


@dataclass
class Registry:
    """Ollama's registry protocol over TLS: manifests by name and tag; blobs by digest, which are
    at another host, from where parts of them are fetched.

    Every name leads to the one real model; what was asked for is in `asked`.
    """

    models: Path
    certificate: Path
    host: str
    asked: list[str] = field(default_factory=list)

    def content(self, path: str) -> Path | None:
        """The file behind a URL's path."""
        if path.startswith(_STORAGE):
            return self.models / "blobs" / path.removeprefix(_STORAGE)
        found = _PATH.fullmatch(path)
        if not found:
            return None
        name, kind, reference = found.groups()
        self.asked.append(f"{name} {kind}")
        if kind == "blobs":
            return self.models / "blobs" / reference.replace(":", "-")
        library = self.models / "manifests" / "registry.ollama.ai" / "library"
        return library / ollama.MODEL.replace(":", "/") if reference == "latest" else None


def _handler(registry: Registry) -> type[Handler]:
    class Serving(Handler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = registry.content(self.path)
            if path is None or not path.exists():
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if self.command == "GET" and "/blobs/" in self.path:
                port = registry.host.rpartition(":")[2]
                self.send_response(307)
                self.send_header("Location", f"https://localhost:{port}{_STORAGE}{path.name}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            size = path.stat().st_size
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            first, last = (int(wanted[1]), int(wanted[2])) if wanted else (0, size - 1)
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            if self.command == "GET":
                with path.open("rb") as file:
                    file.seek(first)
                    self.wfile.write(file.read(last - first + 1))

    return Serving


@contextmanager
def _serving(models: Path, folder: Path) -> Iterator[Registry]:
    certificate, key = folder / "ca.crt", folder / "tls.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=registry"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    registry = Registry(models, certificate, "")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(_handler(registry), context) as server:
        registry.host = server.address
        yield registry


@dataclass(frozen=True)
class Pod:
    """Where the init step runs: its volume, and the registry whose certificate it trusts."""

    models: Path
    home: Path
    certificate: Path

    def pull(self, *models: str) -> subprocess.CompletedProcess[str]:
        """The init container's command."""
        settings = {
            "HOME": str(self.home),
            "OLLAMA_MODELS": str(self.models),
            "OLLAMA_NOPRUNE": "1",
            "PATH": f"{self.home}:{os.environ['PATH']}",
            "SSL_CERT_FILE": str(self.certificate),
        }
        return subprocess.run(
            ["bash", str(SCRIPTS / "pull.sh"), *models],
            env=settings | {"OLLAMA_HOST": f"127.0.0.1:{free_ports(1)[0]}"},
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture
def registry(serve: Serve, tmp_path: Path) -> Iterator[Registry]:
    with _serving(ollama.models(), tmp_path) as started:
        yield started


@pytest.fixture
def pod(registry: Registry, tmp_path: Path) -> Pod:
    made = Pod(tmp_path / "models", tmp_path / "home", registry.certificate)
    made.models.mkdir()
    made.home.mkdir()
    (made.home / "ollama").symlink_to(ci.parts.ensure(["ollama"])["ollama"])
    return made


def test_models_are_pulled_once_and_a_restart_asks_nobody(registry: Registry, pod: Pod) -> None:
    first, second = (f"{registry.host}/library/{name}" for name in ("first", "second"))
    done = pod.pull(first, second)
    assert done.returncode == 0, done.stderr
    assert {"first manifests", "first blobs", "second manifests"} <= set(registry.asked)
    blobs = {path.name: path.stat().st_size for path in (pod.models / "blobs").iterdir()}
    there = {path.name: path.stat().st_size for path in (registry.models / "blobs").iterdir()}
    assert blobs.items() <= there.items()
    assert max(blobs.values()) == max(there.values())

    registry.asked.clear()
    again = pod.pull(first, second)
    assert again.returncode == 0, again.stderr
    assert f"{first} is there" in again.stdout
    assert f"{second} is there" in again.stdout
    assert registry.asked == []

    third = f"{registry.host}/library/third"
    added = pod.pull(first, second, third)
    assert added.returncode == 0, added.stderr
    assert [line for line in added.stdout.splitlines() if line.startswith("pulling ")] == [
        f"pulling {third}"
    ]
    # Its blobs are those of the others.
    assert set(registry.asked) == {"third manifests"}


def test_of_two_replicas_on_one_volume_one_pulls(registry: Registry, pod: Pod) -> None:
    model = f"{registry.host}/library/first"
    with ThreadPoolExecutor(2) as replicas:
        both = list(replicas.map(lambda _: pod.pull(model), range(2)))
    assert [done.returncode for done in both] == [0, 0], [done.stderr for done in both]
    said = "".join(done.stdout for done in both).splitlines()
    assert said.count(f"pulling {model}") == 1
    assert registry.asked.count("first manifests") == 1


def test_an_image_without_flock_pulls_all_the_same(registry: Registry, pod: Pod) -> None:
    (pod.home / "flock").write_text("#!/bin/sh\nexit 127\n")
    (pod.home / "flock").chmod(0o755)
    done = pod.pull(f"{registry.host}/library/first")
    assert done.returncode == 0, done.stderr
    assert "no lock on" in done.stderr


def test_a_model_that_nobody_has_is_named_and_the_step_fails(registry: Registry, pod: Pod) -> None:
    done = pod.pull(f"{registry.host}/library/none:missing")
    assert done.returncode != 0
    assert f"pulling {registry.host}/library/none:missing" in done.stdout
    assert "does not exist" in done.stderr or "not found" in done.stderr


def test_a_folder_of_the_image_is_only_read(registry: Registry, pod: Pod) -> None:
    pod.models.chmod(0o555)
    if os.access(pod.models, os.W_OK):
        pytest.skip("root may write everywhere")
    done = pod.pull(f"{registry.host}/library/first")
    assert done.returncode != 0
    assert "of the image" in done.stderr
    assert registry.asked == []


def test_ready_is_who_has_answered_one_token(server: Server, tmp_path: Path) -> None:
    answers = _answers(server.url, tmp_path)
    assert answers(ollama.MODEL).returncode == 0
    refused = answers("nonesuch")
    assert refused.returncode == 1
    assert "nonesuch: HTTP 404" in refused.stderr


def _answers(url: str, folder: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """What a pod asks its own server with, for one at another port."""
    script = folder / "answers.sh"
    text = (SCRIPTS / "answers.sh").read_text()
    script.write_text(text.replace("11434", url.rpartition(":")[2].rstrip("/")))
    return lambda model: subprocess.run(
        ["bash", str(script), model], capture_output=True, text=True, timeout=120
    )
