"""What each part is built from: a table, and the key under which a built one is kept."""

import hashlib
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ci.versions import pin

MODULES = Path(__file__).with_name("modules")

# Set for every build, so that the developer's own Go settings change nothing that comes out.
BUILD_ENVIRONMENT: Mapping[str, str] = {
    "CGO_ENABLED": "0",
    "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
    "GOGC": "400",  # the compiler's own: an eighth faster, with 100 MB more memory
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}

# They require what they share in one version (tests hold it), so that Go compiles the Kubernetes
# client once for all. Kubernetes and KEDA replace it with versions of their own.
ALIGNED = (
    *("kwok", "coredns", "metrics-server", "kube-state-metrics"),
    *("node-problem-detector", "helm", "helm3", "prometheus"),
)

# Programs whose speed shows in a cluster; the others start a minute sooner without inlining.
_OPTIMIZED = ("kubernetes", "ollama")

_STRIPPED = "-s -w"
# With all libraries inside, so that it runs in an image whatever machine it was built on.
_STATIC = f"{_STRIPPED} -linkmode external -extldflags -static"


@dataclass(frozen=True)
class Native:
    """What a program that is partly C and C++ needs besides its module."""

    packages: Mapping[str, str]
    """A file or program that must be there → the Debian package that brings it."""
    header: str
    """A header inside a source distribution from PyPI, as it is included (`<sdist>/<name>.h`)."""
    tags: str


@dataclass(frozen=True)
class Recipe:
    """One part: a program (has a `package`) or a folder of a module's sources (has a `folder`)."""

    name: str
    module: str
    """The folder in `ci/parts/modules` and the name of the version in `[go]`."""
    package: str = ""
    link: str = _STRIPPED
    version_variable: str = ""
    """The variable that the linker sets to the version, where a release build does that."""
    version_prefix: str = "v"
    """What that variable's value begins with."""
    source_module: str = ""
    folder: str = ""
    native: Native | None = None
    tags: str = ""
    """Build tags, where they leave out what is not needed."""


def _kubernetes(name: str) -> Recipe:
    return Recipe(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}", link="kubernetes")


def _prometheus(name: str) -> Recipe:
    # Only one way to discover targets: the clouds' libraries would be most of the build.
    package = f"github.com/prometheus/prometheus/cmd/{name}"
    return Recipe(name, "prometheus", package, tags="remove_all_sd,enable_kubernetes_sd")


def _table(recipes: Iterable[Recipe]) -> dict[str, Recipe]:
    table: dict[str, Recipe] = {}
    for recipe in recipes:
        if table.setdefault(recipe.name, recipe) is not recipe:
            raise ValueError(f"two recipes for {recipe.name}")
    return table


_KEDA = "github.com/kedacore/keda/v2"
_METRICS = "sigs.k8s.io/metrics-server"
_OLLAMA = "github.com/ollama/ollama"
_ALERTMANAGER = "github.com/prometheus/alertmanager"

# In the order in which they are built: what the most commands wait for first.
RECIPES: Mapping[str, Recipe] = _table(
    [
        Recipe("etcd", "kubernetes", "./etcd"),
        _kubernetes("kube-apiserver"),
        _kubernetes("kube-controller-manager"),
        _kubernetes("kube-scheduler"),
        _kubernetes("kubectl"),
        _kubernetes("kubelet"),
        _kubernetes("kube-proxy"),
        Recipe("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
        Recipe("kwok-stages", "kwok", source_module="sigs.k8s.io/kwok", folder="kustomize/stage"),
        Recipe("coredns", "coredns", "./coredns"),
        Recipe("keda-operator", "keda", f"{_KEDA}/cmd/operator"),
        Recipe("keda-adapter", "keda", f"{_KEDA}/cmd/adapter"),
        Recipe("keda-webhooks", "keda", f"{_KEDA}/cmd/webhooks"),
        Recipe("keda-config", "keda", source_module=_KEDA, folder="config"),
        Recipe("metrics-server", "metrics-server", f"{_METRICS}/cmd/metrics-server"),
        Recipe(
            "metrics-server-manifests",
            "metrics-server",
            source_module=_METRICS,
            folder="manifests",
        ),
        Recipe("kube-state-metrics", "kube-state-metrics", "k8s.io/kube-state-metrics/v2"),
        Recipe(
            "node-problem-detector",
            "node-problem-detector",
            "k8s.io/node-problem-detector/cmd/nodeproblemdetector",
            tags="disable_stackdriver_exporter",
        ),
        Recipe(
            "node-problem-detector-config",
            "node-problem-detector",
            source_module="k8s.io/node-problem-detector",
            folder="config",
        ),
        Recipe(
            "helm",
            "helm",
            "helm.sh/helm/v4/cmd/helm",
            version_variable="helm.sh/helm/v4/internal/version.version",
        ),
        Recipe(
            "helm3",
            "helm3",
            "helm.sh/helm/v3/cmd/helm",
            version_variable="helm.sh/helm/v3/internal/version.version",
        ),
        Recipe("kubeconform", "kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform"),
        Recipe(
            "prometheus-operator-crds",
            "prometheus-operator",
            source_module="github.com/prometheus-operator/prometheus-operator",
            folder="example/prometheus-operator-crd",
        ),
        Recipe(
            "vertical-pod-autoscaler-crds",
            "vertical-pod-autoscaler",
            source_module="k8s.io/autoscaler/vertical-pod-autoscaler",
            folder="deploy",
        ),
        Recipe("kube-score", "kube-score", "github.com/zegl/kube-score/cmd/kube-score"),
        _prometheus("prometheus"),
        _prometheus("promtool"),
        Recipe("alertmanager", "alertmanager", f"{_ALERTMANAGER}/cmd/alertmanager"),
        Recipe("amtool", "alertmanager", f"{_ALERTMANAGER}/cmd/amtool"),
        Recipe(
            "ollama",
            "ollama",
            _OLLAMA,
            link=_STATIC,
            version_variable=f"{_OLLAMA}/version.Version",
            version_prefix="",
            native=Native(
                packages={
                    "g++": "g++",
                    "/usr/include/nlohmann/json.hpp": "nlohmann-json3-dev",
                    "/usr/include/stb/stb_image.h": "libstb-dev",
                },
                header="miniaudio/miniaudio.h",
                tags="netgo,osusergo",
            ),
        ),
    ]
)


def link_flags(recipe: Recipe, version: str) -> str:
    """The linker's flags; Kubernetes programs get their version."""
    if recipe.version_variable:
        said = f"{recipe.version_prefix}{version.removeprefix('v')}"
        return f"{recipe.link} -X {recipe.version_variable}={said}"
    if recipe.link != "kubernetes":
        return recipe.link
    major, minor, _ = version.removeprefix("v").split(".", 2)
    at = "k8s.io/component-base/version"
    return (
        f"{_STRIPPED} -X {at}.gitVersion={version} -X {at}.gitMajor={major}"
        f" -X {at}.gitMinor={minor} -X {at}.gitTreeState=clean"
    )


def compile_flags(recipe: Recipe) -> str:
    """The Go compiler's flags for all packages. What would describe the program to a debugger
    is left out: the linker strips it anyway (`-s -w`)."""
    return "all=-dwarf=false" if recipe.module in _OPTIMIZED else "all=-dwarf=false -l"


def key(recipe: Recipe, version: str, go_version: str, sources: Mapping[str, bytes]) -> str:
    """The cache folder of a built part: its version and a hash of all that the result depends on.

    `sources` are the wrapper module's files (go.mod and go.sum hold every dependency's hash).
    """
    digest = hashlib.sha256()
    facts = [
        recipe.name,
        recipe.package,
        recipe.source_module,
        recipe.folder,
        link_flags(recipe, version),
        compile_flags(recipe) if recipe.package else "",
        go_version if recipe.package else "",
        f"{platform.system()}/{platform.machine()}",
        *(f"{name}={value}" for name, value in sorted(BUILD_ENVIRONMENT.items())),
        *([recipe.tags] if recipe.tags else []),
    ]
    if recipe.native:
        flags = compiler_flags(platform.machine(), cpu_features())
        facts += [repr(recipe.native), header_digest(recipe.native), flags]
    for fact in facts:
        digest.update(fact.encode() + b"\0")
    for name, content in sorted(sources.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return f"{version}-{digest.hexdigest()[:12]}"


def compiler_flags(machine: str, features: frozenset[str]) -> str:
    """For C and C++. Without AVX2, which every x86 server since 2015 has, a model is 10 × slower;
    Ollama's own releases choose between several builds as they start."""
    fast = machine == "x86_64" and {"avx2", "fma", "f16c", "bmi1", "bmi2", "movbe"} <= features
    return "-O2 -march=x86-64-v3" if fast else "-O2"


def cpu_features() -> frozenset[str]:
    """What this machine's processor can do, by Linux's names; empty where that is not reported."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").split())


def header_digest(native: Native) -> str:
    """The pinned SHA-256 of the source distribution that has the header."""
    return pin("headers", f"{Path(native.header).parent}_sha256")


def module_sources(module: str) -> dict[str, bytes]:
    """The files of a wrapper module, by path inside it."""
    root = MODULES / module
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
