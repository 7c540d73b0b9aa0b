"""Renders the chart as a user's Helm does; every rendering is made once in a session."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

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
#: Everything is rendered for everybody; else what two ways have in common is rendered once.
LONG = bool(os.environ.get("SELFHEAL_LONG"))
#: Cases that together have every part, for what is in the parts and not in the cases.
PARTS = CASES.keys() if LONG else ("default", "production", "ollama", "custom-plugin")
VERSIONS = ("1.31", "1.32", "1.33", "1.34", "1.37")
#: Without a cluster Helm takes what it was compiled with; a `go install`ed Helm 3 says 1.20.
KUBERNETES = f"--kube-version={VERSIONS[-1]}.0"
#: Whether a template asks which Kubernetes it is for. Where none does, one rendering is that of
#: every version; with SELFHEAL_LONG each is made all the same.
VERSION_MATTERS = LONG or any(
    "KubeVersion" in path.read_text(encoding="utf-8")
    for path in (CHART / "templates").rglob("*")
    if path.is_file()
)
OPERATORS = "KEDA and the Prometheus operator"
GROUPS: dict[str, tuple[str, ...]] = {
    "no API groups": (),
    OPERATORS: ("--api-versions=keda.sh/v1alpha1", "--api-versions=monitoring.coreos.com/v1"),
}
#: Generated passwords differ between two renderings without a cluster; the cases fix them.
FIXED = ("rabbitmq.auth.password=p", "rabbitmq.auth.monitorPassword=m")


#: Version and API groups of the clusters that every case is rendered for.
CLUSTERS = [*((version, OPERATORS) for version in VERSIONS), (VERSIONS[-1], "no API groups")]


class Refused(Exception):
    """Helm did not render; the message is what it reported to the user."""


@dataclass(frozen=True)
class Rendering:
    """What Helm is asked to render."""

    sets: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    values: str = ""
    """More values, as YAML."""
    chart: Path = CHART
    release: str = "selfheal"
    flags: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any] | None = None, **others: Any) -> Rendering:
        """With these values."""
        return cls(values="" if values is None else yaml.safe_dump(dict(values)), **others)

    def arguments(self) -> list[str]:
        """Of `helm`, with the values on standard input."""
        found = ["template", self.release, str(self.chart), "--namespace", "selfheal", KUBERNETES]
        found += self.flags
        found += [part for path in self.files for part in ("--values", str(path))]
        found += [part for assignment in self.sets for part in ("--set", assignment)]
        return [*found, "--values", "-"] if self.values else found


def on_cluster(case: str, version: str, groups: str) -> Rendering:
    """A case on a cluster; where there are operators there are network policies too."""
    told = VERSION_MATTERS and version != VERSIONS[-1]
    return Rendering(
        (*FIXED, "networkPolicy.enabled=true") if groups == OPERATORS else FIXED,
        tuple(CASES[case]),
        flags=(*([f"--kube-version={version}.0"] if told else []), *GROUPS[groups]),
    )


@dataclass
class Helm:
    """One Helm binary, and what it has rendered so far or will."""

    binary: Path
    made: dict[Rendering, Future[subprocess.CompletedProcess[str]]] = field(default_factory=dict)
    #: Helm renders beside the tests that read what it has rendered already.
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def ahead(self, renderings: Iterable[Rendering]) -> None:
        """Queues what will be asked for."""
        for one in renderings:
            if one not in self.made:
                self.made[one] = self.pool.submit(self._render, one)

    def render(self, rendering: Rendering) -> list[Manifest]:
        """The manifests, in Helm's order. Raises Refused with Helm's message."""
        begun = self.made.get(rendering)
        if begun is None or begun.cancel():
            # Nobody waits behind what is only queued.
            begun = self.made[rendering] = Future()
            begun.set_result(self._render(rendering))
        done = begun.result()
        if done.returncode != 0:
            raise Refused(done.stderr)
        return _parsed(done.stdout)

    def _render(self, rendering: Rendering) -> subprocess.CompletedProcess[str]:
        return self._call(*rendering.arguments(), given=rendering.values)

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
        asked = Rendering.of(
            values,
            sets=sets,
            files=tuple(files),
            chart=chart,
            release=release,
            flags=tuple(flags),
        )
        return self.render(asked)

    def case(self, name: str, *sets: str, flags: Sequence[str] = ()) -> list[Manifest]:
        """The manifests of a named case: one of chart/ci/, or `default`."""
        return self.template(*FIXED, *sets, files=CASES[name], flags=flags)

    def refusal(
        self,
        *sets: str,
        values: Mapping[str, Any] | None = None,
        flags: Sequence[str] = (),
    ) -> str:
        """The message with which Helm refuses these values."""
        try:
            self.template(*sets, values=values, flags=flags)
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

    def _call(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        # Most of its time such a short process would collect garbage.
        environment = {**os.environ, "GOGC": "off"}
        return subprocess.run(
            [self.binary, *arguments], input=given, env=environment, capture_output=True, text=True
        )


@cache
def _parsed(text: str) -> list[Manifest]:
    # Many renderings are the same: for another Kubernetes, or by the other Helm.
    return [part for part in yaml.load_all(text, _Loader) if part]


class _Loader(yaml.CSafeLoader):
    """Takes no key twice, as YAML says."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice: {sorted(keys)}"
        return super().construct_mapping(node, deep)


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
