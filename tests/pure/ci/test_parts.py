"""What parts are built from, when they are built again, and what a failed build leaves."""

import io
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from ci.parts import PartsError, ensure
from ci.parts.build import check_space, space_needed
from ci.parts.progress import (
    Console,
    Doing,
    Durations,
    begin_line,
    duration,
    end_line,
    live_line,
)
from ci.parts.recipes import ALIGNED, MODULES, RECIPES, key, link_flags, module_sources
from ci.parts.toolchain import is_older
from ci.versions import pin

PROGRAM = RECIPES["kubeconform"]
SOURCES = {"go.mod": b"module x", "go.sum": b"hash"}


@pytest.mark.parametrize("module", sorted({recipe.module for recipe in RECIPES.values()}))
def test_the_pinned_version_is_the_one_that_the_module_requires(module: str) -> None:
    text = (MODULES / module / "go.mod").read_text()
    required = re.findall(r"^(?:require |\t)(\S+) (v\S+)", text, re.MULTILINE)
    tools = re.findall(r"^(?:tool |\t)([^\s=(]+)$", text, re.MULTILINE)
    # A module with a program of its own instead of tools requires one thing directly.
    program = tools[0] if tools else re.findall(r"^require (\S+) v\S+$", text, re.MULTILINE)[0]
    owners = {name: version for name, version in required if f"{program}/".startswith(f"{name}/")}
    assert list(owners.values()) == [pin("go", module)]


def test_what_all_aligned_modules_require_has_one_version() -> None:
    required = {
        module: dict(
            re.findall(
                r"^(?:require |\t)(\S+) (v\S+)",
                (MODULES / module / "go.mod").read_text(),
                re.MULTILINE,
            )
        )
        for module in ALIGNED
    }
    shared = set.intersection(*(set(versions) for versions in required.values()))
    assert {"k8s.io/api", "k8s.io/client-go", "golang.org/x/net"} <= shared
    differ = {
        name: {module: versions[name] for module, versions in required.items()}
        for name in sorted(shared)
        if len({versions[name] for versions in required.values()}) > 1
    }
    commands = [
        f"cd ci/parts/modules/{module} && go get {name}@<newest of {sorted(set(found.values()))}>"
        " && go mod tidy"
        for name, found in differ.items()
        for module in found
    ]
    assert differ == {}, "\n".join(commands)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_every_program_is_a_tool_of_its_module_and_every_dependency_has_a_hash(
    recipe: object,
) -> None:
    part = RECIPES[recipe.name]  # type: ignore[attr-defined]
    text = (MODULES / part.module / "go.mod").read_text()
    assert (MODULES / part.module / "go.sum").stat().st_size > 0
    if part.package.startswith("./"):
        assert (MODULES / part.module / part.package / "main.go").exists()
    elif part.package:
        assert re.search(rf"^(?:tool|\t)\s*{re.escape(part.package)}$", text, re.MULTILINE)


def test_kubernetes_gets_its_version_and_its_staging_modules_go_with_it() -> None:
    version = pin("go", "kubernetes")
    assert f"gitVersion={version} " in link_flags(RECIPES["kubelet"], version)
    assert "gitMinor=34 " in link_flags(RECIPES["kubelet"], version)
    text = (MODULES / "kubernetes" / "go.mod").read_text()
    staged = re.findall(r"^\t(k8s\.io/\S+) => (\S+) (v0\.\S+)$", text, re.MULTILINE)
    assert len(staged) == 31
    assert {module for module, _, _ in staged} == {target for _, target, _ in staged}
    assert {f"v1{number[2:]}" for _, _, number in staged} == {version}


def test_the_key_says_the_version_and_changes_with_all_that_the_result_depends_on() -> None:
    first = key(PROGRAM, "v1.0.0", "go1.26.3", SOURCES)
    others = [
        key(PROGRAM, "v1.0.1", "go1.26.3", SOURCES),
        key(PROGRAM, "v1.0.0", "go1.26.4", SOURCES),
        key(PROGRAM, "v1.0.0", "go1.26.3", SOURCES | {"go.sum": b"other"}),
        key(PROGRAM, "v1.0.0", "go1.26.3", SOURCES | {"main.go": b""}),
        key(replace(PROGRAM, package="other"), "v1.0.0", "go1.26.3", SOURCES),
        key(replace(PROGRAM, link="-s"), "v1.0.0", "go1.26.3", SOURCES),
    ]
    assert first.startswith("v1.0.0-")
    assert len({first, *others}) == 7
    assert key(PROGRAM, "v1.0.0", "go1.26.3", dict(reversed(SOURCES.items()))) == first


def test_sources_that_are_only_copied_are_not_copied_again_for_another_compiler() -> None:
    folder = RECIPES["keda-config"]
    assert key(folder, "v1", "go1.26.3", SOURCES) == key(folder, "v1", "go1.27.0", SOURCES)


def test_the_sources_of_a_module_are_all_its_files() -> None:
    assert set(module_sources("kubernetes")) == {"go.mod", "go.sum", "etcd/main.go"}


@pytest.mark.parametrize(
    ("version", "oldest", "older"),
    [
        ("go1.26.3", "1.26.0", False),
        ("go1.26", "1.26.0", False),
        ("go1.25.9", "1.26.0", True),
        ("go1.9.9", "1.10.0", True),
        ("go2.0.0", "1.26.0", False),
        ("devel go1.27-abcdef", "1.26.0", True),
    ],
)
def test_a_toolchain_is_compared_by_its_numbers(version: str, oldest: str, older: bool) -> None:
    assert is_older(version, oldest) is older


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (41.2, "41 s"), (119.4, "119 s"), (119.6, "2 min 0 s"), (272, "4 min 32 s")],
)
def test_a_duration_has_minutes_when_it_is_long(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_says_what_which_of_how_many_and_how_long_it_took_last_time() -> None:
    assert begin_line("etcd", 1, 1, None) == "building etcd"
    assert begin_line("etcd", 1, 1, 7.4) == "building etcd (took 7 s last time)"
    assert begin_line("a", 4, 29, None) == "building a (4 of 29)"
    begun = begin_line("a", 4, 29, 272)
    assert begun == "building a (4 of 29, took 4 min 32 s last time)"
    assert live_line(begun, 12.4) == f"{begun}: 12 s so far"
    assert end_line("a", 4, 29, 7.4) == "built a (4 of 29) in 7 s"
    assert end_line("etcd", 1, 1, 7.4) == "built etcd in 7 s"


def test_progress_says_when_nothing_is_built() -> None:
    assert begin_line("etcd", 1, 2, None, "downloading") == "downloading etcd (1 of 2)"
    assert end_line("etcd", 1, 2, 7.4, "downloading") == "downloaded etcd (1 of 2) in 7 s"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_in_a_log_each_part_has_one_line_also_one_that_fails(tmp_path: Path) -> None:
    log, durations = io.StringIO(), Durations(tmp_path / "durations.json")
    console = Console(log, durations)
    with console.working("etcd", 1, 2):
        pass
    with pytest.raises(PartsError), console.working("kubelet", 2, 2):
        raise PartsError("no compiler")
    assert log.getvalue().splitlines() == [
        "building etcd (1 of 2) ... done in 0 s",
        "building kubelet (2 of 2) ... failed after 0 s",
    ]
    assert durations.read().keys() == {"etcd"}


def _shown(terminal: _Terminal) -> list[str]:
    """The lines that are left on the terminal."""
    return [line.split("\r\x1b[K")[-1] for line in terminal.getvalue().split("\n")]


def test_on_a_terminal_all_parts_share_one_line(tmp_path: Path) -> None:
    terminal, durations = _Terminal(), Durations(tmp_path / "durations.json")
    durations.note("kubelet", 41.2)
    console = Console(terminal, durations)
    with console.working("etcd", 1, 2):
        assert _shown(terminal) == ["building etcd (1 of 2)"]
    with console.working("kubelet", 2, 2):
        assert _shown(terminal) == ["building kubelet (2 of 2, took 41 s last time)"]
    assert _shown(terminal) == ["built kubelet (2 of 2) in 0 s", ""]


def test_on_a_terminal_a_part_that_fails_keeps_its_line(tmp_path: Path) -> None:
    terminal = _Terminal()
    console = Console(terminal, Durations(tmp_path / "durations.json"))
    with pytest.raises(PartsError), console.working("etcd", 1, 2):
        raise PartsError("no compiler")
    assert _shown(terminal) == ["etcd failed after 0 s", ""]


def test_on_a_narrow_terminal_the_line_does_not_wrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal = _Terminal()
    with Console(terminal, Durations(tmp_path / "durations.json")).working("kube-apiserver"):
        assert _shown(terminal) == ["building kube-apise"]


def test_a_file_of_durations_that_cannot_be_read_costs_the_note_alone(tmp_path: Path) -> None:
    for content in ("[]", "{", '{"etcd": "x"}', "\x00"):
        (tmp_path / "durations.json").write_text(content)
        assert Durations(tmp_path / "durations.json").read() == {}


def test_space_is_needed_once_a_module_and_a_full_disk_is_named_with_both_numbers() -> None:
    kubelet, proxy, helm = (RECIPES[name] for name in ("kubelet", "kube-proxy", "helm"))
    assert space_needed([kubelet, proxy]) == space_needed([kubelet])
    assert space_needed([kubelet, helm]) > space_needed([kubelet])
    enough = space_needed([kubelet])
    check_space([kubelet], {Path("/cache"): enough})
    with pytest.raises(PartsError, match=r"/small to build kubelet: needs about 4 GiB, has 1\.0"):
        check_space([kubelet], {Path("/cache"): enough, Path("/small"): 1 << 30})


class _Silent:
    def __init__(self) -> None:
        self.worked: list[tuple[str, int, int]] = []

    def working(
        self, part: str, number: int = 1, total: int = 1, doing: Doing = "building"
    ) -> AbstractContextManager[None]:
        self.worked.append((part, number, total))
        return nullcontext()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SELFHEAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SELFHEAL_PARTS", "source")
    return tmp_path / "cache"


def _fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str) -> None:
    """Puts a `go` on PATH that is new enough and runs `build` with the output's path in $out."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "go"
    program.write_text(
        textwrap.dedent(
            f"""\
            #!/bin/sh
            case "$1 $2" in
              "env GOVERSION") echo go1.99.0 ;;
              "env GOCACHE") echo {tmp_path}; echo {tmp_path} ;;
              *) out=$5; {build} ;;
            esac
            """
        )
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def _files(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "parts").rglob("*") if path.is_file())


def test_only_what_is_missing_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    _fake_go(tmp_path, monkeypatch, 'echo program > "$out"')
    first, second = _Silent(), _Silent()

    built = ensure(["kubelet", "etcd"], first)
    again = ensure(["kubelet", "kubectl", "etcd"], second)

    assert first.worked == [("etcd", 1, 2), ("kubelet", 2, 2)]
    assert second.worked == [("kubectl", 1, 1)]
    assert {name: again[name] for name in built} == built
    assert built["etcd"].read_text() == "program\n"
    assert cache in built["etcd"].parents


def test_a_failed_build_says_the_last_words_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    _fake_go(tmp_path, monkeypatch, 'echo half > "$out"; echo "x.go:1: no such type" >&2; exit 1')
    with pytest.raises(PartsError, match=r"build of etcd failed \(status 1\):\n  x\.go:1: no such"):
        ensure(["etcd"], _Silent())
    assert _files(cache) == [".lock"]


def test_a_build_that_ran_out_of_memory_says_that_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    _fake_go(tmp_path, monkeypatch, 'echo "compile: signal: killed" >&2; exit 1')
    with pytest.raises(PartsError, match=r"etcd was killed .*lack of memory"):
        ensure(["etcd"], _Silent())


def test_what_a_killed_process_left_is_removed_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    ready = tmp_path / "ready"
    _fake_go(tmp_path, monkeypatch, f'echo half > "$out"; echo > {ready}; exec sleep 600')
    command = [sys.executable, "-m", "ci.parts", "build", "etcd"]
    killed = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    assert killed.stderr is not None
    while not ready.exists():
        assert killed.poll() is None
    os.killpg(killed.pid, 9)
    killed.wait()
    killed.stderr.close()
    assert _files(cache) == [".lock", "etcd"]

    _fake_go(tmp_path, monkeypatch, 'echo whole > "$out"')
    assert ensure(["etcd"], _Silent())["etcd"].read_text() == "whole\n"
    assert _files(cache) == [".lock", "etcd"]


def test_an_unknown_part_is_named_with_all_there_are(cache: Path) -> None:
    with pytest.raises(PartsError, match="no such part: nonesuch; there are etcd, kube-apiserver"):
        ensure(["nonesuch"])


def test_no_toolchain_at_all_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    _fake_go(tmp_path, monkeypatch, "true")
    old = tmp_path / "bin" / "go"
    old.write_text("#!/bin/sh\necho go1.20.1\n")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(PartsError, match=r"needs Go 1\.26\.0 or later.*go1\.20\.1.*make venv"):
        ensure(["etcd"])


def test_settings_of_the_developer_do_not_reach_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("GOFLAGS", "-mod=mod -race")
    monkeypatch.setenv("CGO_ENABLED", "1")
    _fake_go(tmp_path, monkeypatch, 'env > "$out"')
    seen: Mapping[str, str] = dict(
        line.split("=", 1)
        for line in ensure(["etcd"], _Silent())["etcd"].read_text().splitlines()
        if line.startswith(("GOFLAGS", "CGO_ENABLED"))
    )
    assert seen == {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false"}
