"""A real Kubernetes cluster on one machine, without a container engine. See `--help`."""

from ci.cluster.cluster import Cluster, Status, control_plane_only
from ci.cluster.errors import ClusterError
from ci.cluster.spec import Spec

__all__ = ["Cluster", "ClusterError", "Spec", "Status", "control_plane_only"]
