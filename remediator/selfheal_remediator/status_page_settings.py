"""Settings of the status page."""

from __future__ import annotations

from selfheal_remediator.strict import Strict as _Strict


class StatusPage(_Strict):
    """The page under /status, for everybody who reaches the HTTP port."""

    enabled: bool = False
