"""What pod healing needs of the controller."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selfheal_remediator.healing.plan import RestartAction
from selfheal_remediator.kube.events import ObjectEvent


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Who publishes Events and counts, and what is known of nodes.

    node_trouble, node_path: see Around. probed: in any thread, with the result's label. gone: the
    policy of this key was deleted.
    """

    publish: Callable[[ObjectEvent], None]
    node_trouble: Callable[[str], str]
    node_path: Callable[[str], bool]
    restarted: Callable[[RestartAction], None]
    refused: Callable[[str], None]
    probed: Callable[[str], None]
    gone: Callable[[str], None]
