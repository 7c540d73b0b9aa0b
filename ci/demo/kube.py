"""kubectl and helm as the demo uses them: calls and port-forwards."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

Object = dict[str, Any]
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


class CommandFailed(Exception):
    """A kubectl or helm call ended with an error; the message holds what it printed."""


def ending_with_us(command: Sequence[str]) -> list[str]:
    """The command of a helper that runs on until it is stopped. On Linux the kernel kills it when
    the thread that started it ends, so that not even a SIGKILL of the demo leaves it behind."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    return [*([setpriv, "--pdeathsig=KILL"] if setpriv else []), *command]


@dataclass(frozen=True)
class Kube:
    """One cluster. `kubeconfig` None means kubectl's own choice (KUBECONFIG or ~/.kube/config);
    one that is named is of a cluster on this machine."""

    kubectl_program: str
    helm_program: str
    kubeconfig: Path | None = None

    def kubectl(self, *args: str, input: str | None = None) -> str:
        """kubectl's standard output; raises CommandFailed."""
        return self._run([self.kubectl_program, *args], input)

    def helm(self, *args: str) -> str:
        """helm's standard output; raises CommandFailed."""
        return self._run([self.helm_program, *args], None)

    def get(self, *args: str) -> Object:
        """`kubectl get … -o json`, decoded."""
        return dict(json.loads(self.kubectl("get", *args, "-o", "json")))

    def items(self, *args: str) -> list[Object]:
        """The objects of a list."""
        return list(self.get(*args)["items"])

    @contextmanager
    def forward(self, namespace: str, target: str, port: int) -> Iterator[int]:
        """A port-forward; gives the local port on loopback."""
        command = [self.kubectl_program, "-n", namespace, "port-forward", target, f":{port}"]
        with subprocess.Popen(
            ending_with_us(command),
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stderr is not None
                found = _FORWARDING.search(process.stdout.readline())
                if found is None:
                    process.terminate()
                    raise CommandFailed(f"port-forward {target}: {process.stderr.read().strip()}")
                # kubectl prints a line for each connection: unread, a full pipe would stall it.
                for stream in (process.stdout, process.stderr):
                    threading.Thread(target=_drain, args=(stream,), daemon=True).start()
                yield int(found[1])
            finally:
                process.terminate()

    def environment(self) -> dict[str, str]:
        if self.kubeconfig is None:
            return dict(os.environ)
        # No proxy of the user's stands between this machine and itself.
        direct = {"NO_PROXY": "*", "no_proxy": "*"}
        return {**os.environ, **direct, "KUBECONFIG": str(self.kubeconfig)}

    def _run(self, command: list[str], text: str | None) -> str:
        done = subprocess.run(
            command, input=text, env=self.environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            shown = " ".join([Path(command[0]).name, *command[1:]])
            raise CommandFailed(f"{shown}: exit status {done.returncode}: {done.stderr.strip()}")
        return done.stdout


def _drain(stream: IO[str]) -> None:
    # Closed by the port-forward's end, perhaps before the first read.
    with contextlib.suppress(ValueError):
        stream.read()
