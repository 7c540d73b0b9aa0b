"""The application team's side of the demo: publishes feedback, reads results, lists dead letters.

It uses the commands that users have (`selfheal-worker publish|results|dead-letters`) through a
port-forward to the broker, which is opened again when the broker's pod moves.
"""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ci.demo.kube import CommandFailed, Kube, ending_with_us

_WORKER = Path(sys.executable).with_name("selfheal-worker")
_AMQP_PORT = 5672
_AGAIN_SECONDS = 1.0


@dataclass
class Mailbox:
    """The broker of one release. `results` holds what was read so far, in order; `changed` is
    notified at each."""

    kube: Kube
    namespace: str
    release: str
    changed: threading.Condition
    results: list[dict[str, Any]] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _reader: subprocess.Popen[str] | None = None

    def publish(self, lines: Sequence[str], id_prefix: str = "", raw: bool = False) -> None:
        """Publish messages, one line each; with `raw` as they are, malformed ones too.

        A line without an id of its own gets `id_prefix-<line number, from 1>` as its message id.

        Raises CommandFailed unless the broker confirmed all of them.
        """
        options = ["--raw"] if raw else []
        options += ["--id-prefix", id_prefix] if id_prefix else []
        self._command("publish", "-", *options, lines="".join(f"{line}\n" for line in lines))

    def dead_letters(self) -> list[dict[str, Any]]:
        """The dead letters, which stay where they are."""
        listed = self._command("dead-letters", "list", "-o", "json")
        return [json.loads(line) for line in listed.splitlines()]

    def answered(self, prefix: str) -> set[str]:
        """Ids answered so far that begin with `prefix`."""
        with self.changed:
            return {str(r["id"]) for r in self.results if str(r["id"]).startswith(prefix)}

    def _command(self, *arguments: str, lines: str | None = None) -> str:
        """What a worker command prints, given `lines` as its input; raises CommandFailed."""
        with self._broker() as environment:
            done = subprocess.run(
                [str(_WORKER), *arguments],
                input=lines,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
        if done.returncode:
            raise CommandFailed(f"selfheal-worker {arguments[0]}: {done.stderr.strip()}")
        return done.stdout

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read results in the background while the context lasts, as often as wanted."""
        self._stopped.clear()
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            if self._reader:
                self._reader.terminate()
            thread.join(timeout=10)

    def _read(self) -> None:
        while not self._stopped.is_set():
            try:
                with self._broker() as environment:
                    self._read_until_broken(environment)
            except CommandFailed:
                pass  # the broker's pod is moving: again below
            self._stopped.wait(_AGAIN_SECONDS)

    def _read_until_broken(self, environment: dict[str, str]) -> None:
        with subprocess.Popen(
            ending_with_us([str(_WORKER), "results", "--follow", "-o", "json"]),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as self._reader:
            if self._stopped.is_set():
                self._reader.terminate()
            assert self._reader.stdout is not None
            for line in self._reader.stdout:
                if not line.endswith("\n"):
                    break  # killed within a line: not acknowledged, so it comes again
                with self.changed:
                    self.results.append(json.loads(line))
                    self.changed.notify_all()

    @contextmanager
    def _broker(self) -> Iterator[dict[str, str]]:
        """The environment of a worker command that reaches the broker through a port-forward."""
        name = f"{self.release}-rabbitmq"
        secret = self.kube.get("secret", name, "-n", self.namespace)["data"]
        user, password = (
            quote(base64.b64decode(secret[key]).decode(), safe="")
            for key in ("username", "password")
        )
        with self.kube.forward(self.namespace, f"service/{name}", _AMQP_PORT) as port:
            yield {**os.environ, "AMQP_URI": f"amqp://{user}:{password}@127.0.0.1:{port}/"}
