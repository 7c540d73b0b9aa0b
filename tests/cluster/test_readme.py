"""Every command of the README and docs/: run on the demo's cluster, or named with its own test."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ci import images, parts

pytestmark = pytest.mark.cluster

_ROOT = Path(__file__).parents[2]
_NEW = "newcomer"
_PAGES = (_ROOT / "README.md", *sorted((_ROOT / "docs").glob("*.md")))
_BLOCKS = [
    block
    for page in _PAGES
    for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.M | re.S)
]

# Commands that other tests run, by how they begin.
_ELSEWHERE = {
    "make demo-down": "the end of the fixture `demo`",
    "make demo MODEL=ollama": "tests/models: the same Ollama and model, without the cluster",
    "make demo": "the fixture `demo`",
    "make test": "this run",
    "make venv": "what this run was started with",
    "docker build": "tests/cluster/test_images.py builds both files with buildah",
    "helm install keda": "the cluster has KEDA",
    "helm verify": "tests/chart/test_signed.py",
    "make simulate": "tests/simulation",
    "SEED=7 make simulate": "tests/simulation",
}
# A forwarded port is awaited, and closed at the end.
_FORWARDED = (
    " >/dev/null & trap 'kill %%1' EXIT;"
    " until (exec 3<>/dev/tcp/localhost/%s) 2>/dev/null; do sleep 0.2; done"
)
# Where the reader has something of his own.
_YOURS = {
    "helm install selfheal ./chart": "helm template selfheal ./chart",
    "helm upgrade selfheal ./chart": "helm template selfheal ./chart",
    " --reset-then-reuse-values": "",  # not of `helm template`
    "node-7": "node-1",
    "ci.cluster status": "ci.cluster status --name demo-test",
    "service/selfheal-rabbitmq 5672 &": f"service/selfheal-rabbitmq 5672{_FORWARDED % 5672}",
    '| cut -d_ -f1)" 8080': f'| cut -d_ -f1)" 8080{_FORWARDED % 8080}',
}


def _commands(block):
    """The commands of a block: one a line, lines that end in a backslash joined, no comments."""
    lines = re.sub(r"\\\n\s*", "", block).splitlines()
    return [line.split("   #")[0].rstrip() for line in lines if line.strip()]


def _is_elsewhere(command):
    return any(command == one or command.startswith(f"{one} ") for one in _ELSEWHERE)


def _script(block):
    lines = [command for command in _commands(block) if not _is_elsewhere(command)]
    script = "\n".join(lines)
    for theirs, ours in _YOURS.items():
        script = script.replace(theirs, ours)
    return script.replace(".venv/bin/", f"{Path(sys.executable).parent}/")


_SCRIPTS = [script for script in map(_script, _BLOCKS) if script]


@pytest.fixture
def shell(cluster, tmp_path):
    """Runs a script as the README's reader does, on this cluster; what it printed."""
    for name, program in parts.ensure(["kubectl", "helm"]).items():
        (tmp_path / name).symlink_to(program)
    config = str(cluster.kubeconfig)
    environment = {"KUBECONFIG": config, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def run(script):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script.replace("~/.kube/config", config)],
            cwd=_ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=420,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout

    return run


def test_the_pages_have_commands():
    assert len(_BLOCKS) >= 12
    assert len(_SCRIPTS) >= 9


def test_a_first_answer_takes_five_commands_at_most(shell):
    """The README's `helm install` and `helm test`, with images that are here already, and without
    what there can be only one of in a cluster: the demo's release has it."""
    [commands] = [_commands(block) for block in _BLOCKS if "helm install keda" in block]
    assert len(commands) <= 5
    install, test = (
        command.replace("selfheal ./chart", f"{_NEW} ./chart")
        .replace("helm test selfheal", f"helm test {_NEW}")
        .replace("--namespace selfheal", f"--namespace {_NEW}")
        for command in commands[-2:]
    )
    install += " --set remediator.enabled=false --set nodeProblemDetector.enabled=false"
    for name, image in images.ensure(["worker", "rabbitmq"]).items():
        repository, _, tag = image.ref.rpartition(":")
        install += f" --set-string {name}.image.repository={repository}"
        install += f" --set-string {name}.image.tag={tag}"
    try:
        shell(install)
        said = shell(test)
    finally:
        shell(f"helm uninstall {_NEW} --namespace {_NEW} --ignore-not-found")
        shell(f"kubectl delete namespace {_NEW} --ignore-not-found --timeout=120s")
    assert "Succeeded" in said
    assert "helm-test: Joy" in said


@pytest.mark.parametrize("script", _SCRIPTS, ids=lambda script: script.splitlines()[0][:60])
def test_what_the_pages_say_to_type_works(shell, script):
    shell(script)
