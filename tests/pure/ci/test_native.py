"""A part that is partly C++: what it needs on the machine, and what its key changes with."""

import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ci import pypi
from ci.parts import PartsError, native
from ci.parts.recipes import RECIPES, compiler_flags, key, link_flags
from ci.versions import pin

OLLAMA = RECIPES["ollama"]
assert OLLAMA.native is not None
NATIVE = OLLAMA.native
V3 = frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2", "movbe"})


@pytest.mark.parametrize(
    ("machine", "features", "fast"),
    [
        ("x86_64", V3 | {"avx512f"}, True),
        ("x86_64", V3 - {"fma"}, False),
        ("x86_64", frozenset(), False),
        ("aarch64", frozenset(), False),
    ],
)
def test_vector_instructions_are_used_where_the_processor_has_all_of_them(
    machine: str, features: frozenset[str], fast: bool
) -> None:
    assert ("-march=x86-64-v3" in compiler_flags(machine, features)) is fast


def test_a_key_changes_with_what_only_native_parts_depend_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def made(part: object = OLLAMA) -> str:
        return key(part, "v1", "go1.26.3", {})  # type: ignore[arg-type]

    monkeypatch.setattr("ci.parts.recipes.cpu_features", lambda: V3)
    keys = [
        made(),
        made(replace(OLLAMA, native=replace(NATIVE, tags="other"))),
        made(replace(OLLAMA, native=None)),
    ]
    helm = made(RECIPES["helm"])
    monkeypatch.setattr("ci.parts.recipes.cpu_features", lambda: frozenset())
    keys.append(made() if platform.machine() == "x86_64" else "x86 only")
    monkeypatch.setattr("ci.parts.recipes.header_digest", lambda _: "another header")
    keys.append(made())
    assert len(set(keys)) == 5
    assert made(RECIPES["helm"]) == helm


def test_the_program_is_whole_in_itself_and_knows_its_version() -> None:
    flags = link_flags(OLLAMA, pin("go", "ollama"))
    assert "-extldflags -static" in flags
    assert f"version.Version={pin('go', 'ollama').removeprefix('v')}" in flags


def test_missing_packages_are_found_by_program_and_by_file(tmp_path: Path) -> None:
    there = tmp_path / "there.h"
    there.touch()
    packages = {
        "sh": "dash",
        "no-such-compiler": "compiler",
        str(there): "headers",
        str(tmp_path / "not.h"): "other-headers",
    }
    assert native.missing_packages(packages) == ["compiler", "other-headers"]


def test_packages_that_cannot_be_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PartsError, match=r"missing on this machine: compiler; install with"):
        native.install(replace(NATIVE, packages={"no-such-compiler": "compiler"}))


def test_the_header_is_found_under_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = pin("headers", "miniaudio")
    inside = tmp_path / f"miniaudio-{version}" / "miniaudio"
    inside.mkdir(parents=True)
    (inside / "miniaudio.h").write_text("// sound\n")
    sdist = tmp_path / "sdist.tar.gz"
    subprocess.run(["tar", "-czf", sdist, "-C", tmp_path, inside.parent.name], check=True)
    monkeypatch.setattr(pypi, "fetch", lambda *_: sdist)
    monkeypatch.setattr(native, "install", lambda _: None)

    flags = native.environment(NATIVE, tmp_path / "cache")["CGO_CXXFLAGS"]

    folder = tmp_path / "cache" / "headers" / pin("headers", "miniaudio_sha256")[:16]
    assert flags.endswith(f'"-I{folder}"')
    assert (folder / NATIVE.header).read_text() == "// sound\n"


@pytest.fixture
def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `python` that notes how pip is called, and does what the file `script` says."""
    monkeypatch.setenv("SELFHEAL_CACHE", str(tmp_path / "cache"))
    program, script = tmp_path / "python", tmp_path / "script"
    program.write_text(
        f"""#!/bin/sh
echo "$@" >>{tmp_path}/calls
while [ $# -gt 0 ]; do [ "$1" = --dest ] && dest=$2; shift; done
. {script}
"""
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return tmp_path


def test_a_file_is_fetched_once_by_its_hash(fake_pip: Path) -> None:
    (fake_pip / "script").write_text("mkdir $dest; echo content >$dest/thing-1.tar.gz\n")
    first = pypi.fetch("thing", "1", "f" * 64)
    assert pypi.fetch("thing", "1", "f" * 64) == first
    assert first.read_text() == "content\n"
    (call,) = (fake_pip / "calls").read_text().splitlines()
    assert "--no-binary :all: --require-hashes" in call
    assert [path.name for path in (fake_pip / "cache" / "pypi").iterdir()] == ["f" * 16]


def test_a_file_that_cannot_be_had_leaves_nothing_and_says_pips_last_words(fake_pip: Path) -> None:
    (fake_pip / "script").write_text("mkdir $dest; echo 'no such version' >&2; exit 1\n")
    with pytest.raises(pypi.FetchFailed, match=r"could not get thing 1:\n  no such version"):
        pypi.fetch("thing", "1", "f" * 64, wheel=True)
    assert list((fake_pip / "cache" / "pypi").iterdir()) == []
