"""A release in a namespace, and what Helm, the garbage collector and we do to it, call by call."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from selfheal_remediator.failures import ApiFailure
from selfheal_remediator.kube.responses import Answer
from selfheal_remediator.restore.live import Live, live_of
from selfheal_remediator.restore.release import KINDS, OBJECTS, Release, release_from_json
from selfheal_remediator.threads.runtime import REAL

Json = dict[str, Any]
NAMESPACE, CONFIG_MAP = "d", "r-restore"


def manifest(kind: str, name: str, **spec: Any) -> Json:
    """As the chart renders it."""
    labels = {"app.kubernetes.io/name": "selfheal", "app.kubernetes.io/instance": "r"}
    return {
        "apiVersion": KINDS[kind].api,
        "kind": kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": spec,
    }


def deployment(image: str = "worker:1", replicas: int | None = 2, **env: str) -> Json:
    """The worker's."""
    variables = [{"name": key, "value": value} for key, value in env.items()]
    pod = {"containers": [{"name": "worker", "image": image, "env": variables}]}
    spec: Json = {"template": {"spec": pod}}
    if replicas is not None:
        spec["replicas"] = replicas
    return manifest("Deployment", "r-worker", **spec)


def config_map(*objects: Json, uid: str = "cm-1", **meta: Any) -> Json:
    """The chart's ConfigMap as Helm made it."""
    annotations = {"meta.helm.sh/release-name": "r", "meta.helm.sh/release-namespace": NAMESPACE}
    return {
        "kind": "ConfigMap",
        "metadata": {
            "name": CONFIG_MAP,
            "namespace": NAMESPACE,
            "uid": uid,
            "resourceVersion": "1",
            "labels": {"app.kubernetes.io/name": "selfheal", "app.kubernetes.io/instance": "r"},
            "annotations": annotations,
            **meta,
        },
        "data": {OBJECTS: json.dumps(objects)},
    }


def key_of(raw: Json) -> str:
    """`Kind/name`."""
    return f"{raw['kind']}/{raw['metadata']['name']}"


class World:
    """The API server's objects, and the calls that errand.py makes.

    before: called with each call's number, to do what others do in between; lost: numbers of the
    calls whose answer is lost; killed_at: the number of the first call that is not made.
    """

    def __init__(self, *objects: Json, config: Json | None) -> None:
        self.runtime, self.dry_run = REAL, False
        self.config = config
        self.objects: dict[str, Json] = {}
        self.before: Callable[[int], None] = lambda _: None
        self.lost: frozenset[int] = frozenset()
        self.killed_at: int | None = None
        self.calls = self._made = 0
        self.managers: set[str] = set()
        for raw in objects:
            self.make(raw)

    # -- what others do ---------------------------------------------------------------------

    def make(self, raw: Json) -> Json:
        """Make or replace an object as Helm does: it keeps its uid, and only what is applied."""
        made = copy.deepcopy(raw)
        known = self.objects.get(key_of(raw))
        self._made += 1
        made["metadata"]["uid"] = known["metadata"]["uid"] if known else f"u{self._made}"
        made["metadata"]["resourceVersion"] = str(self._made)
        self.objects[key_of(raw)] = made
        return made

    def delete(self, key: str) -> None:
        """Of what may be gone."""
        self.objects.pop(key, None)

    def collect_garbage(self) -> None:
        """Delete what only a ConfigMap owns that is gone."""
        uid = self.config["metadata"]["uid"] if self.config else ""
        for key, raw in list(self.objects.items()):
            owners = raw["metadata"].get("ownerReferences")
            if owners and all(owner["uid"] != uid for owner in owners):
                del self.objects[key]

    def live(self) -> dict[str, Live]:
        """What the watches show."""
        return {key: live_of(KINDS[raw["kind"]])(raw) for key, raw in self.objects.items()}

    def release(self) -> Release | None:
        """What the watch of the ConfigMap shows."""
        return None if self.config is None else release_from_json(self.config)

    # -- what we call -----------------------------------------------------------------------

    def config_map(self, namespace: str, name: str) -> Json | None:
        self.step()
        assert (namespace, name) == (NAMESPACE, CONFIG_MAP)
        return copy.deepcopy(self.config)

    def objects_of(self, plural: str, name: str) -> list[Json]:
        return [
            copy.deepcopy(raw)
            for raw in self.objects.values()
            if KINDS[raw["kind"]].plural == plural and raw["metadata"]["name"] == name
        ]

    def apply(
        self,
        at: tuple[str, str, str, str],
        body: Json,
        manager: str,
        *,
        force: bool,
        begun: object = None,
    ) -> Answer:
        number = self.step()
        self.managers.add(manager)
        known = self.objects.get(key_of(body))
        uid = body["metadata"].pop("uid", None)
        if uid is not None and (known is None or known["metadata"]["uid"] != uid):
            return Answer(409, b"{}")
        made = body if self.dry_run else self.make(body)
        made["metadata"].setdefault("uid", "dry")
        return self._answer(number, Answer(200 if known else 201, b"", None, made))

    def patch_object(
        self, at: tuple[str, str, str, str], patch: list[Json], *, begun: object = None
    ) -> Answer:
        number = self.step()
        [key] = [
            key
            for key, raw in self.objects.items()
            if (KINDS[raw["kind"]].plural, raw["metadata"]["name"]) == (at[1], at[3])
        ] or [""]
        meta = self.objects[key]["metadata"] if key else {}
        if meta.get("uid") != patch[0]["value"] or not meta.get("ownerReferences"):
            return Answer(422, b"{}")
        del meta["ownerReferences"]
        return self._answer(number, Answer(200, b"", None, self.objects[key]))

    def step(self) -> int:
        """A call is made."""
        self.calls += 1
        self.before(self.calls)
        if self.killed_at is not None and self.calls >= self.killed_at:
            raise ApiFailure(0, "Killed", "the process is gone")
        return self.calls

    def _answer(self, number: int, answer: Answer) -> Answer:
        if number in self.lost:
            raise ApiFailure(0, "Lost", "the answer is lost")
        return answer


class Api:
    """The world as errand.py calls it: `objects` is a method there."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.runtime = world.runtime
        self.config_map, self.apply = world.config_map, world.apply
        self.patch_object = world.patch_object

    @property
    def dry_run(self) -> bool:
        return self._world.dry_run

    def objects(self, api: str, plural: str, namespace: str, selectors: Mapping[str, str]) -> Any:
        return _Found(self._world, plural, selectors["fieldSelector"].partition("=")[2])


class _Found:
    def __init__(self, world: World, plural: str, name: str) -> None:
        self._world, self._plural, self._name = world, plural, name

    def pages(self) -> Iterator[tuple[list[Json], str]]:
        self._world.step()
        yield self._world.objects_of(self._plural, self._name), "1"
