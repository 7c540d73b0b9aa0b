"""The images that can be had: what each is made of, its name, and the key that changes with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ci.parts
from ci import ollama
from ci.images import archive, buildah, inputs, pause, rootfs, store, tools
from ci.images.archive import Config, File
from ci.parts.build import place
from ci.parts.progress import Progress
from ci.parts.recipes import RECIPES
from ci.parts.toolchain import find
from ci.versions import cache_root, pin

REGISTRY = "localhost/selfheal"
NONROOT = "65532:65532"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REVISION = "3"
"""Raised when the way in which images are put together changes in a way that no key sees."""


@dataclass(frozen=True)
class Ready:
    """What an image needs, made: parts by name, root file systems by name."""

    parts: Mapping[str, Path]
    roots: Mapping[str, Path]


@dataclass(frozen=True)
class Plan:
    """An image to be: `make(archive file, ref, ready)` writes it once its needs are there."""

    name: str
    tag: str
    key: str
    make: Callable[[Path, str, Ready], None]
    parts: Sequence[str] = ()
    roots: Sequence[str] = ()

    @property
    def ref(self) -> str:
        """The name that the archive gives the image."""
        return f"{REGISTRY}/{self.name}:{self.tag}"

    @property
    def path(self) -> Path:
        """Where its archive is, or will be."""
        return cache_root() / "images" / f"{self.name}-{self.key}.tar"


def prepare(plan: Plan, progress: Progress) -> Ready:
    """Makes what the image needs (parts that are built already cost nothing)."""
    parts = ci.parts.ensure(plan.parts, progress) if plan.parts else {}
    roots = {name: rootfs.ensure(name, progress) for name in plan.roots}
    return Ready(parts, roots)


@dataclass(frozen=True)
class _Program:
    """One static program alone in an image: its path there and how it is run."""

    path: str
    arguments: Sequence[str] = ()
    user: str = NONROOT
    capability: bytes | None = None


_ZAP = ("--zap-log-level=info", "--zap-encoder=console")

# Paths, arguments and users are those of the programs' public images, so that their own manifests
# run unchanged.
_PROGRAMS = {
    "keda-operator": _Program("/keda", _ZAP),
    "keda-adapter": _Program("/keda-adapter", ("--secure-port=6443", *_ZAP)),
    "keda-webhooks": _Program("/keda-admission-webhooks", _ZAP),
    "coredns": _Program("/coredns", capability=archive.NET_BIND_SERVICE),
    "metrics-server": _Program("/metrics-server", user="65534"),
}

# Where the image `ollama` has its model: a value of the chart.
OLLAMA_MODELS = "/usr/share/ollama/models"

NAMES = (
    *("pause", "rabbitmq", "worker", "remediator", "node-problem-detector"),
    *_PROGRAMS,
    "ollama",
)


def plan(name: str) -> Plan:
    """The plan of one image. Raises ValueError naming all there are for an unknown one."""
    if name in _PROGRAMS:
        return _program(name, _PROGRAMS[name])
    special = {
        "worker": lambda: _dockerfile("worker"),
        "remediator": lambda: _dockerfile("remediator"),
        "rabbitmq": _rabbitmq,
        "node-problem-detector": _node_problem_detector,
        "pause": _pause,
        "ollama": _ollama,
    }
    if name not in special:
        raise ValueError(f"no image {name!r}; there are {', '.join(NAMES)}")
    return special[name]()


def _dockerfile(name: str) -> Plan:
    base, stage = rootfs.path_of("base"), rootfs.path_of("build")
    key = inputs.dockerfile_key(tools.REPOSITORY, name, base.name, f"{stage.name} {_REVISION}")

    def make(target: Path, ref: str, ready: Ready) -> None:
        with store.locked(cache_root() / "buildah" / "lock"):
            storage = buildah.storage(base.name.rpartition("-")[2])
            arguments = {
                argument: _stage_image(storage, target, ready.roots[root])
                for argument, root in (("BASE_IMAGE", "base"), ("BUILD_IMAGE", "build"))
            }
            dockerfile = tools.REPOSITORY / name / "Dockerfile"
            local = f"{REGISTRY}/{name}:latest"
            made = buildah.build(storage, dockerfile, tools.REPOSITORY, arguments, local)
            # By its id: pushed by its name, the archive would have that name as well.
            storage.run("push", made, f"docker-archive:{target}:{ref}")

    return Plan(name, key, key, make, roots=("base", "build"))


def _stage_image(storage: buildah.Storage, target: Path, root: Path) -> str:
    """The root file system as an image in the storage, loaded there the first time."""
    ref = f"{REGISTRY}/{root.name.replace('-', ':')}"
    if not storage.has(ref):
        with store.scratch_folder(target) as folder:
            layer, whole = folder / "layer.tar", folder / "image.tar"
            archive.layer_of_folder(root, layer)
            archive.write(whole, ref, [layer], Config(env={"PATH": _PATH}, cmd=["bash"]))
            storage.run("pull", f"docker-archive:{whole}")
    return ref


def _rabbitmq() -> Plan:
    # Debian's wrappers in /usr/sbin insist on root or `su`; those in /usr/lib/rabbitmq/bin do not.
    path = f"/usr/lib/rabbitmq/bin:{_PATH}"
    config = Config(
        cmd=["rabbitmq-server"],
        user="999:999",
        env={"PATH": path, "HOME": "/var/lib/rabbitmq", "LANG": "C.UTF-8", "RABBITMQ_LOGS": "-"},
        exposed=["5672/tcp", "15672/tcp", "15692/tcp"],
        labels={"org.opencontainers.image.title": "rabbitmq"},
    )

    def make(target: Path, ref: str, ready: Ready) -> None:
        with store.scratch_folder(target) as folder:
            archive.layer_of_folder(ready.roots["rabbitmq"], folder / "layer.tar")
            archive.write(target, ref, [folder / "layer.tar"], config)

    key = inputs.key_of("rabbitmq", rootfs.path_of("rabbitmq").name, repr(config), _REVISION)
    return Plan("rabbitmq", pin("debian", "rabbitmq"), key, make, roots=("rabbitmq",))


def _node_problem_detector() -> Plan:
    program, settings = "node-problem-detector", "node-problem-detector-config"
    config = Config(
        entrypoint=[
            "/node-problem-detector",
            "--config.system-log-monitor=/config/kernel-monitor.json,/config/readonly-monitor.json",
        ],
        env={"PATH": _PATH},
        labels={"org.opencontainers.image.title": program},
    )

    def make(target: Path, ref: str, ready: Ready) -> None:
        folder_in = ready.parts[settings]
        files = {"/node-problem-detector": File(ready.parts[program], 0o755)}
        for path in sorted(p for p in folder_in.rglob("*") if p.is_file()):
            mode = 0o755 if path.suffix == ".sh" else 0o644
            files[f"/config/{path.relative_to(folder_in).as_posix()}"] = File(path, mode)
        with store.scratch_folder(target) as folder:
            archive.layer_of_folder(ready.roots["base"], folder / "base.tar")
            archive.layer_of_files(files, folder / "layer.tar")
            archive.write(target, ref, [folder / "base.tar", folder / "layer.tar"], config)

    parts = (program, settings)
    facts = [rootfs.path_of("base").name, repr(config), _REVISION]
    key = inputs.key_of(program, *map(_part_key, parts), *facts)
    return Plan(program, _tag_of_part(program), key, make, parts=parts, roots=("base",))


def _ollama() -> Plan:
    # As docker.io/ollama/ollama, and with a small model in it, which a pod there would pull.
    config = Config(
        entrypoint=["/bin/ollama"],
        cmd=["serve"],
        env={"PATH": _PATH, "OLLAMA_HOST": "0.0.0.0:11434"},
        exposed=["11434/tcp"],
        labels={"org.opencontainers.image.title": "ollama"},
    )

    def make(target: Path, ref: str, ready: Ready) -> None:
        # Debian's /bin is a link to /usr/bin: a folder /bin in a layer would take its place.
        files = {"/usr/bin/ollama": File(ready.parts["ollama"], 0o755)}
        models = ollama.models()
        inside = {
            f"{OLLAMA_MODELS}/{path.relative_to(models).as_posix()}": File(path)
            for path in sorted(models.rglob("*"))
            if path.is_file()
        }
        with store.scratch_folder(target) as folder:
            layers = [folder / name for name in ("base.tar", "models.tar", "program.tar")]
            archive.layer_of_folder(ready.roots["base"], layers[0])
            archive.layer_of_files(inside, layers[1])
            archive.layer_of_files(files, layers[2])
            archive.write(target, ref, layers, config)

    facts = [rootfs.path_of("base").name, ollama.models_key(), repr(config), _REVISION]
    key = inputs.key_of("ollama", _part_key("ollama"), *facts)
    return Plan("ollama", _tag_of_part("ollama"), key, make, parts=("ollama",), roots=("base",))


def _program(name: str, program: _Program) -> Plan:
    config = Config(
        entrypoint=[program.path, *program.arguments],
        user=program.user,
        labels={"org.opencontainers.image.title": name},
    )

    def make(target: Path, ref: str, ready: Ready) -> None:
        _alone(target, ref, config, program.path, ready.parts[name], program.capability)

    key = inputs.key_of(name, _part_key(name), repr(program), _REVISION)
    return Plan(name, _tag_of_part(name), key, make, parts=(name,))


def _pause() -> Plan:
    config = Config(entrypoint=["/pause"], user="65535:65535")

    def make(target: Path, ref: str, _ready: Ready) -> None:
        with store.scratch_folder(target.with_name("pause-program")) as folder:
            _alone(target, ref, config, "/pause", pause.build(folder))

    key = inputs.key_of("pause", pause.sources_digest(), _REVISION)
    return Plan("pause", key, key, make)


def _alone(
    target: Path,
    ref: str,
    config: Config,
    path: str,
    program: Path,
    capability: bytes | None = None,
) -> None:
    with store.scratch_folder(target) as folder:
        files = {path: File(program, 0o755, capability)}
        archive.layer_of_files(files, folder / "layer.tar", {"/tmp": 0o1777})
        archive.write(target, ref, [folder / "layer.tar"], config)


def _part_key(name: str) -> str:
    # The folder of a part is named after its version and all that went into it.
    return place(RECIPES[name], find(pin("go", "toolchain"))).parent.name


def _tag_of_part(name: str) -> str:
    return pin("go", RECIPES[name].module).removeprefix("v")
