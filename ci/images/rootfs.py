"""Debian root file systems by debootstrap, kept in the cache by what they are made of.

`build` is Debian with Python and pip (the build stage of the images), `base` the same without pip
(what images start from), `rabbitmq` Debian 13 with RabbitMQ 4.0 (an image, and the broker that the
tests start in a chroot), `older-rabbitmq` Debian 12 with 3.10 (for the tests alone: that line is in
use too). A root file system in the cache is never written to again: whoever runs something in one
mounts its own folders over it (see `ci.images.chroot`).
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ci.images import aptsource, store, tools
from ci.images.errors import ImagesError
from ci.parts.progress import Console, Progress
from ci.versions import cache_root, pin

# The last two lines: what says when, or on which disk, the packages were installed.
_TRIM = """
rm -rf /var/cache/apt/* /var/cache/debconf/*-old /var/lib/apt/lists/* /var/log/*.log /var/log/apt
find /usr/share/doc -mindepth 1 -not -name copyright -not -type d -delete
find /usr/share/doc -type d -empty -delete
rm -rf /usr/share/man /usr/share/info /usr/share/locale /usr/share/i18n /usr/share/lintian
rm -f /etc/apt/sources.list /etc/hostname /etc/resolv.conf
rm -f /var/cache/ldconfig/aux-cache /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow-
sed -i 's/^\\([^:]*:[^:]*:\\)[0-9]*:/\\1:/' /etc/shadow
"""

# The ids of the public rabbitmq image, so that a chart's securityContext fits both. Debian takes
# the next free system ids, which differ with what else the suite installs.
_RABBITMQ = (
    """
for kind in user group; do
  [ $kind = user ] && file=passwd || file=group
  taken=$(awk -F: '$3 == 999 && $1 != "rabbitmq" {print $1}' /etc/$file)
  [ -z "$taken" ] || { echo "id 999 is taken by $kind $taken" >&2; exit 1; }
done
groupmod -g 999 rabbitmq
usermod -u 999 -g 999 rabbitmq
mkdir -p /etc/rabbitmq/conf.d /var/lib/rabbitmq /var/log/rabbitmq
chown -R rabbitmq:rabbitmq /etc/rabbitmq /var/lib/rabbitmq /var/log/rabbitmq
rm -rf /var/lib/rabbitmq/.erlang.cookie /var/lib/rabbitmq/mnesia
echo '[rabbitmq_management,rabbitmq_prometheus].' > /etc/rabbitmq/enabled_plugins
"""
    + _TRIM
)

# Without it Erlang 25 does not find its own node's host.
_HOSTS = "echo '127.0.0.1 localhost' > /etc/hosts\n"

_NO_PIP = """
dpkg --purge python3-pip python3-setuptools python3-wheel python3-pkg-resources python3-distutils \\
  python3-lib2to3
rm -rf /root/.cache /var/log/dpkg.log
"""


@dataclass(frozen=True)
class Recipe:
    """What a root file system is made of. `parent` names one to copy instead of debootstrap."""

    name: str
    suite: str
    packages: tuple[str, ...] = ()
    parent: str | None = None
    finish: str = ""
    version_of: tuple[str, str] | None = None
    """A package and the start of the version that it must have."""


def recipes() -> dict[str, Recipe]:
    """The root file systems that can be had; suites and versions come from ci/versions.toml."""
    python = ("python3", "python3-pip", "ca-certificates")
    broker = ("rabbitmq-server", "ca-certificates")
    made = [
        Recipe("build", pin("debian", "base"), python, finish=_TRIM),
        Recipe("base", pin("debian", "base"), parent="build", finish=_NO_PIP),
        Recipe(
            "rabbitmq",
            pin("debian", "broker"),
            broker,
            finish=_RABBITMQ,
            version_of=("rabbitmq-server", pin("debian", "rabbitmq")),
        ),
        Recipe(
            "older-rabbitmq",
            pin("debian", "older_broker"),
            broker,
            finish=_RABBITMQ + _HOSTS,
            version_of=("rabbitmq-server", pin("debian", "older_rabbitmq")),
        ),
    ]
    return {recipe.name: recipe for recipe in made}


def key(recipe: Recipe, known: dict[str, Recipe], machine: str) -> str:
    """Sixteen hex digits of everything that the result depends on, its parent included."""
    parent = key(known[recipe.parent], known, machine) if recipe.parent else ""
    return hashlib.sha256(repr((recipe, parent, machine)).encode()).hexdigest()[:16]


def path_of(name: str) -> Path:
    """Where the root file system `name` is, or would be."""
    known = recipes()
    if name not in known:
        raise ValueError(f"no root file system {name!r}; there are {', '.join(sorted(known))}")
    digest = key(known[name], known, platform.machine())
    return cache_root() / "rootfs" / f"{name}-{digest}"


def ensure(name: str, progress: Progress | None = None) -> Path:
    """The root directory of `name`, made now if the cache has none. Needs root to make one.

    Raises `tools.MissingTools` when something it needs is missing and cannot be installed, and
    `ImagesError` with the last lines of output when debootstrap fails.
    """
    final = path_of(name)
    if final.is_dir():
        return final
    said = progress or Console()
    recipe = recipes()[name]
    parent = ensure(recipe.parent, said) if recipe.parent else None
    with store.locked(cache_root() / "rootfs" / f"{name}.lock"):
        if not final.is_dir():
            tools.need_root(f"making the {name} root file system")
            tools.need_space(final.parent, 1, f"the {name} root file system")
            tools.need({"debootstrap": "debootstrap"})
            with said.working(f"root file system {name}"):
                _make(recipe, parent, final)
            store.prune_named(final)
    return final


def _make(recipe: Recipe, parent: Path | None, final: Path) -> None:
    with store.whole_folder(final) as part:
        if parent:
            tools.run(["cp", "-a", f"{parent}/.", str(part)])
        else:
            _debootstrap(recipe, part)
        shell = ["chroot", str(part), "/bin/sh", "-eu"]
        tools.run_contained(shell, text=recipe.finish, env=_CHROOT_ENV)
        _check_version(recipe, part)
        tools.run(["sync", "--file-system", str(part)])


_CHROOT_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root"}


def _debootstrap(recipe: Recipe, target: Path) -> None:
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if not keyring.exists():
        tools.install(["debian-archive-keyring"])
    command = ["debootstrap", "--variant=minbase", f"--keyring={keyring}"]
    command += [f"--include={','.join(recipe.packages)}", recipe.suite, str(target)]
    mirror = os.environ.get("SELFHEAL_DEBIAN_MIRROR")
    mirror = mirror or aptsource.debian_mirror(aptsource.machine_sources())
    # Without one (not a Debian machine) debootstrap has a default of its own.
    command += [mirror] if mirror else []
    # dpkg syncs each file, which doubles the time; one sync at the end does as well here.
    settings = {"LC_ALL": "C", "DPKG_FORCE": "unsafe-io"}
    tools.run_contained(command, env=dict(os.environ) | _apt_proxy() | settings)


def _apt_proxy() -> dict[str, str]:
    """debootstrap fetches with wget, which knows nothing of apt's own proxy setting."""
    answer = subprocess.run(
        ["apt-config", "shell", "proxy", "Acquire::http::Proxy"],
        capture_output=True,
        text=True,
        check=False,
    )
    value = answer.stdout.strip().removeprefix("proxy=").strip("'")
    return {"http_proxy": value} if value else {}


def _check_version(recipe: Recipe, root: Path) -> None:
    if recipe.version_of is None:
        return
    package, wanted = recipe.version_of
    query = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f=${Version}", package]
    found = tools.run(query)
    if not found.startswith(f"{wanted}."):
        raise ImagesError(
            f"Debian {recipe.suite} has {package} {found}, but ci/versions.toml wants {wanted}"
        )
