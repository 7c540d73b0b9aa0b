"""Reads the pods that the constraints of moving pods are about, with bounded requests."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from selfheal_remediator.drain.topology import Population, Resident
from selfheal_remediator.failures import ApiFailure, Json, Malformed
from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.decoding import Unread, decode_each
from selfheal_remediator.kube.json_values import as_name, as_text
from selfheal_remediator.kube.objects import Node
from selfheal_remediator.kube.placement import Expression, Peers
from selfheal_remediator.kube.pods import Pod, pod_from_json
from selfheal_remediator.kube.responses import understood

log = logging.getLogger(__name__)

#: Lists per check, and pods in one; beyond these the answer is unknown.
MAX_LISTS = 50
MAX_PODS = 5000
#: So many namespaces are listed one by one; for more, one list of all namespaces is read.
MAX_NAMESPACES = 3
_Query = tuple[str, str]


class _Namespaces:
    """The labels of all namespaces, read when a term first needs them."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self._known: Mapping[str, Mapping[str, str] | None] | None = None
        self.failure = ""

    def labels_of(self, name: str) -> Mapping[str, str] | None:
        """None = they cannot be read."""
        if self._known is None and not self.failure:
            try:
                self._known = self._read()
            except ApiFailure as failure:
                self.failure = str(failure)
                log.warning("namespaces cannot be listed: %s", failure)
        return None if self._known is None else self._known.get(name, {})

    def _read(self) -> Mapping[str, Mapping[str, str] | None]:
        """None = it cannot be read. Raises ApiFailure."""
        unread: list[Unread] = []
        found: dict[str, Mapping[str, str] | None] = {}
        for raws, _ in self._api.namespaces().pages():
            found.update(decode_each(raws, _labels, unread))
        for item in unread:
            if not item.name:
                raise Malformed(str(item))
            found[item.name] = None
        return found


@understood("a Namespace")
def _labels(raw: Json) -> tuple[str, Mapping[str, str]]:
    meta = raw["metadata"]
    labels = dict(meta.get("labels") or {})
    return as_name(meta["name"]), {as_name(key): as_text(labels[key]) for key in labels}


def read_population(
    api: KubernetesApi,
    pods: Iterable[Pod],
    nodes: Iterable[Node],
    coming: Iterable[tuple[Pod, Node]] = (),
) -> Population:
    """The peers of the pods where they run, without those pods themselves.

    coming: pods that other drains are to put on nodes, which count there. Peers that cannot be
    read are noted as such.
    """
    going = {pod.uid: pod.node for pod in pods}
    leaving = set(going.values())
    namespaces = _Namespaces(api)
    by_name = {node.name: node for node in nodes}
    made = Population(by_name.values(), namespaces.labels_of)
    for pod, node in coming:
        made.add(Resident.of(pod), node)
    lists = _Lists(api)
    for peers in dict.fromkeys(peers for pod in pods for peers in pod.placement.needs_peers):
        why = lists.read(peers)
        if not why and not peers.named and namespaces.labels_of("") is None:
            why = f"namespaces cannot be listed: {namespaces.failure}"
        if why:
            made.unread[peers] = why
    for pod in lists.pods():
        gone = pod.uid in going or (pod.deletion is not None and pod.node in leaving)
        if pod.node in by_name and not pod.finished and not gone:
            made.add(Resident.of(pod), by_name[pod.node])
    return made


class _Lists:
    """What was listed, by namespace (empty = all) and selector; why it was not."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self._read: dict[_Query, list[Pod] | str] = {}

    def pods(self) -> Iterable[Pod]:
        """All pods that were listed, some of them more than once."""
        return (pod for found in self._read.values() if isinstance(found, list) for pod in found)

    def read(self, peers: Peers) -> str:
        """List the peers; why that cannot be done, empty = it was."""
        for query in _queries(peers):
            if query not in self._read and len(self._read) >= MAX_LISTS:
                return f"its constraints need more than {MAX_LISTS} lists of pods"
            if query not in self._read:
                self._read[query] = self._list(*query)
            found = self._read[query]
            if isinstance(found, str):
                return found
        return ""

    def _list(self, namespace: str, selector: str) -> list[Pod] | str:
        found: list[Pod] = []
        what = f"pods with {selector or 'any labels'} in {namespace or 'all namespaces'}"
        try:
            for raws, _ in self._api.pods_labelled(namespace, selector).pages(cached=True):
                if len(found) + len(raws) > MAX_PODS:
                    return f"there are more than {MAX_PODS} {what}"
                found += [pod_from_json(raw) for raw in raws]
        except ApiFailure as failure:
            log.warning("%s cannot be listed: %s", what, failure)
            return f"{what} cannot be listed: {failure}"
        return found


def _queries(peers: Peers) -> list[_Query]:
    """The lists that contain all peers. None for a term without selector: it matches no pods."""
    if peers.selector is None:
        return []
    text = ",".join(sorted({_text(item) for item in peers.selector} - {""}))
    if peers.where is not None or len(peers.namespaces) > MAX_NAMESPACES:
        return [("", text)]
    return [(namespace, text) for namespace in peers.namespaces]


def _text(item: Expression) -> str:
    """The requirement as a query of the API understands it; empty = it knows no such operator."""
    values = ",".join(sorted(item.values))
    return {
        "In": f"{item.key} in ({values})",
        "NotIn": f"{item.key} notin ({values})",
        "Exists": item.key,
        "DoesNotExist": f"!{item.key}",
    }.get(item.operator, "")
