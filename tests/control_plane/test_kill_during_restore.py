"""kill -9 at each change while deleted objects of a release are made again: each is, once.

The short form kills at a few seeded changes and ends when all are back; SELFHEAL_LONG=1 kills at
every one, in each of three ways, and waits until the ConfigMap owns none of them any more.
"""

import json
import subprocess
from functools import cache

import yaml

from ci.parts import ensure
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.restore.release import KINDS, OBJECTS, RELEASE_NAME, RELEASE_NAMESPACE
from tests.control_plane.conftest import Stages
from tests.control_plane.kill_at_call import LEASE, LONG, Story, kill_everywhere
from tests.control_plane.permissions import ROOT, chart_permissions
from tests.control_plane.site import Site
from tests.control_plane.world import World

SHORT = 5
#: What the chart is rendered for; a story's own namespace takes its place.
PLACE = "place-of-the-story"
NAME = "x-restore"
SETTINGS = (
    *("--namespace", PLACE, "--set", "autoscaling.mode=none,worker.replicas=2,ollama.enabled=true"),
    *("--set", "remediator.config.restore.enabled=true,nodeProblemDetector.enabled=false"),
    *("--set", "model.provider=ollama,model.name=tiny:1b,ollama.models={tiny:1b}"),
)


def test_killed_at_any_change_each_object_comes_back_once(stages: Stages) -> None:
    kill_everywhere(stages, _Restores, "restore", SHORT)


@cache
def _config_map() -> str:
    """The ConfigMap of objects as the chart renders it, as JSON."""
    command = [str(ensure(["helm"])["helm"]), "template", "selfheal", str(ROOT / "chart")]
    command += ["--show-only", "templates/remediator/restore.yaml", *SETTINGS]
    done = subprocess.run(
        [*command, "--set", "fullnameOverride=x"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.dumps(yaml.safe_load(done.stdout))


@cache
def _permissions() -> list[Json]:
    return chart_permissions(ensure(["helm"])["helm"], *SETTINGS)["Role"]


class _Restores(Story):
    """All objects of a release that can be restored are deleted by hand."""

    changes_only = True

    def __init__(self, site: Site, number: int, way: str) -> None:
        super().__init__(site, number, way)
        self.world = World(site)

    def tell(self) -> None:
        site = self.site
        role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{site.name}/roles"
        site.patch(f"{role}/{site.name}-remediator", {"rules": _permissions()})
        before = self._install()
        for path in before:
            site.delete(path)
        config = site.config(
            rules=[{"condition": "TestFault", "for": "1h", "action": "cordon"}],
            restore={"enabled": True, "configMap": NAME, "gracePeriod": "5s"},
            lease=LEASE,
        )
        with self.world.watched():
            self.start(config)
            self.until(config, "all are back", lambda: len(self._there(before)) == len(before))
            after = self._there(before)
            for path, old in before.items():
                self._judge(path, old, after[path])
            if LONG:
                self.until(config, "none is owned", lambda: not any(self._owners(before)))

    def _install(self) -> dict[str, Json]:
        """What Helm would make; by path, as it is then."""
        site = self.site
        config_map = json.loads(_config_map().replace(PLACE, site.name))
        marks = {RELEASE_NAME: "selfheal", RELEASE_NAMESPACE: site.name}
        made: dict[str, Json] = {}
        for raw in [*json.loads(config_map["data"][OBJECTS]), config_map]:
            meta = raw["metadata"]
            meta["annotations"] = {**(meta.get("annotations") or {}), **marks}
            meta["labels"]["app.kubernetes.io/managed-by"] = "Helm"
            kind = KINDS.get(raw["kind"])
            api, plural = (kind.api, kind.plural) if kind else ("v1", "configmaps")
            at = (api, plural, site.name, meta["name"])
            answer = site.api.apply(at, raw, "helm", force=True)
            assert answer.ok, answer.failure()
            if kind is not None:
                root = f"/apis/{api}" if "/" in api else f"/api/{api}"
                path = f"{root}/namespaces/{site.name}/{plural}/{meta['name']}"
                made[path] = answer.json()
        return made

    def _there(self, paths: dict[str, Json]) -> dict[str, Json]:
        answers = {path: self.site.api.send("GET", path) for path in paths}
        return {path: answer.json() for path, answer in answers.items() if answer.ok}

    def _owners(self, paths: dict[str, Json]) -> list[list[Json]]:
        return [raw["metadata"].get("ownerReferences", []) for raw in self._there(paths).values()]

    def _judge(self, path: str, old: Json, new: Json) -> None:
        """It is another object, made once, and otherwise as it was rendered."""
        meta, was = new["metadata"], old["metadata"]
        uids = {uid for done, uid in self.proxy.changed if done == f"PATCH {path}"}
        owners = [(one["kind"], one["name"]) for one in meta.get("ownerReferences", ())]
        kept = meta.get("annotations", {}).items()
        wanted = {
            "it was never deleted": meta["uid"] != was["uid"],
            f"made {uids}": uids == {meta["uid"]},
            f"owned by {owners}": owners == [("ConfigMap", NAME)],
            f"managed by {_managers(new)}": _managers(new) == _managers(old) == {("helm", "Apply")},
            f"annotated {kept}": was["annotations"].items() <= kept,
            f"labelled {meta['labels']}": meta["labels"] == was["labels"],
            f"specified {_spec(new)}, was {_spec(old)}": _spec(new) == _spec(old),
        }
        self.wrongs += [f"{path}: {text}" for text, holds in wanted.items() if not holds]


def _managers(raw: Json) -> set[tuple[str, str]]:
    """Who wrote it, but for controllers."""
    fields = [one for one in raw["metadata"]["managedFields"] if "subresource" not in one]
    return {
        (one["manager"], one["operation"])
        for one in fields
        if one["manager"] != "kube-controller-manager"
    }


def _spec(raw: Json) -> Json:
    """Without what the API server gives to each new Service."""
    return {k: v for k, v in raw.get("spec", {}).items() if not k.startswith("clusterIP")}
