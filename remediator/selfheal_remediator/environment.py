"""What environment variables say of the place that the process runs in."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from selfheal_remediator.config import SettingsError

DEFAULT_CONFIG_FILE = "/etc/selfheal/remediator.yaml"
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("json", "text")


@dataclass(frozen=True, slots=True)
class Environment:
    """Where this process runs. An empty pod name means: outside a cluster."""

    pod_name: str
    pod_namespace: str
    pod_uid: str
    node_name: str
    config_file: Path
    http_port: int
    log_level: str
    log_format: str

    @classmethod
    def read(cls, variables: Mapping[str, str] | None = None) -> Environment:
        """From environment variables. Raises SettingsError with every mistake at once."""
        env = os.environ if variables is None else variables
        problems = []
        port = env.get("HTTP_PORT", "8080")
        if re.fullmatch("[0-9]{1,5}", port) is None or int(port) > 65535:
            problems.append(f"HTTP_PORT: {port!r} is not a port (0 to 65535; 0 = any free one)")
        level = env.get("LOG_LEVEL", "info").lower()
        if level not in LOG_LEVELS:
            problems.append(f"LOG_LEVEL: {level!r} is not one of {', '.join(LOG_LEVELS)}")
        layout = env.get("LOG_FORMAT", "json").lower()
        if layout not in LOG_FORMATS:
            problems.append(f"LOG_FORMAT: {layout!r} is not one of {', '.join(LOG_FORMATS)}")
        if problems:
            raise SettingsError("environment", problems)
        return cls(
            pod_name=env.get("POD_NAME", ""),
            pod_namespace=env.get("POD_NAMESPACE", ""),
            pod_uid=env.get("POD_UID", ""),
            node_name=env.get("NODE_NAME", ""),
            config_file=Path(env.get("CONFIG_FILE", DEFAULT_CONFIG_FILE)),
            http_port=int(port),
            log_level=level,
            log_format=layout,
        )
