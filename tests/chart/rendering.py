"""Renders the chart as a user's Helm does; every rendering is made once in a session."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

CHART = Path(__file__).resolve().parents[2] / "chart"
CASES = {
    "default": [],
    **{
        path.name.removesuffix("-values.yaml"): [path]
        for path in sorted((CHART / "ci").glob("*-values.yaml"))
    },
}
#: Without a cluster Helm takes what it was compiled with; a `go install`ed Helm 3 says 1.20.
KUBERNETES = "--kube-version=1.34.0"
#: Generated passwords differ between two renderings without a cluster; comparisons fix them.
FIXED = ("rabbitmq.auth.password=p", "rabbitmq.auth.monitorPassword=m")


class Refused(Exception):
    """Helm did not render; the message is what it told the user."""


@dataclass
class Helm:
    """One Helm binary, and what it has rendered so far."""

    binary: Path
    rendered: dict[tuple[object, ...], list[Manifest]] = field(default_factory=dict)

    def template(
        self,
        *sets: str,
        files: Sequence[Path] = (),
        values: Mapping[str, Any] | None = None,
        chart: Path = CHART,
        release: str = "selfheal",
        flags: Sequence[str] = (),
    ) -> list[Manifest]:
        """The manifests, in Helm's order. Raises Refused with Helm's message."""
        key = (sets, tuple(files), yaml.safe_dump(values), chart, release, tuple(flags))
        if key not in self.rendered:
            text = self._run(release, chart, sets, files, values, flags)
            self.rendered[key] = [part for part in yaml.load_all(text, yaml.CSafeLoader) if part]
        return self.rendered[key]

    def case(self, name: str, *sets: str, flags: Sequence[str] = ()) -> list[Manifest]:
        """The manifests of a named case: one of chart/ci/, or `default`."""
        return self.template(*sets, files=CASES[name], flags=flags)

    def refusal(self, *sets: str, values: Mapping[str, Any] | None = None) -> str:
        """The message with which Helm refuses these values."""
        try:
            self.template(*sets, values=values)
        except Refused as refused:
            return str(refused)
        raise AssertionError(f"rendered, and should have been refused: {sets} {values}")

    def notes(self, *sets: str, files: Sequence[Path] = ()) -> str:
        """What a user reads after the install."""
        arguments = ["install", "feelings", str(CHART), "--namespace", "ns", "--dry-run=client"]
        arguments += [part for path in files for part in ("--values", str(path))]
        arguments += [part for assignment in sets for part in ("--set", assignment)]
        done = self._call(*arguments)
        if done.returncode != 0:
            raise Refused(done.stderr)
        return done.stdout.partition("\nNOTES:\n")[2]

    def lint(self, files: Sequence[Path]) -> subprocess.CompletedProcess[str]:
        """`helm lint --strict`."""
        arguments = [argument for path in files for argument in ("--values", str(path))]
        return self._call("lint", "--strict", KUBERNETES, str(CHART), *arguments)

    def _run(
        self,
        release: str,
        chart: Path,
        sets: Sequence[str],
        files: Sequence[Path],
        values: Mapping[str, Any] | None,
        flags: Sequence[str],
    ) -> str:
        arguments = ["template", release, str(chart), "--namespace", "selfheal", KUBERNETES, *flags]
        for path in files:
            arguments += ["--values", str(path)]
        for assignment in sets:
            arguments += ["--set", assignment]
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            if values is not None:
                yaml.safe_dump(dict(values), file)
                file.flush()
                arguments += ["--values", file.name]
            done = self._call(*arguments)
        if done.returncode != 0:
            raise Refused(done.stderr)
        return done.stdout

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.binary, *arguments], capture_output=True, text=True)


def by_kind(manifests: Sequence[Manifest], kind: str) -> dict[str, Manifest]:
    """The manifests of a kind, by name."""
    return {m["metadata"]["name"]: m for m in manifests if m["kind"] == kind}


def workloads(manifests: Sequence[Manifest]) -> Iterator[Manifest]:
    """Everything that makes pods."""
    for manifest in manifests:
        if "template" in manifest.get("spec", {}):
            yield manifest


def pod_specs(manifests: Sequence[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Everything that makes pods or is one, with the pods' spec."""
    for manifest in manifests:
        if manifest["kind"] == "Pod":
            yield manifest, manifest["spec"]
    for manifest in workloads(manifests):
        yield manifest, manifest["spec"]["template"]["spec"]


def pod_templates(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    """The pod templates by `Kind/name`; the topology Job without the hash in its name."""
    return {
        f"{m['kind']}/{m['metadata']['name']}": m["spec"]["template"] for m in workloads(manifests)
    }


def containers(template: Manifest) -> list[Manifest]:
    """All containers of a pod template, init containers first."""
    return containers_of(template["spec"])


def containers_of(spec: Manifest) -> list[Manifest]:
    """All containers of a pod's spec, init containers first."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(container: Manifest) -> dict[str, Any]:
    """A container's variables; a value, or where it comes from."""
    return {v["name"]: v.get("value", v.get("valueFrom")) for v in container.get("env", [])}
