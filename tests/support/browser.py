"""A headless Chromium that a test drives by the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

#: Only a hang is longer.
PATIENCE = 120.0
#: The keys that tests press: DevTools wants their codes.
_KEYS = {"Tab": 9, "Enter": 13}


class Page:
    """One tab. problems: what its console shows as errors and warnings."""

    def __init__(self, address: str) -> None:
        # Chromium refuses other origins than its own, and takes none.
        self._socket = websocket.create_connection(address, PATIENCE, suppress_origin=True)
        self._number, self._session = 0, ""
        self._events: list[dict[str, Any]] = []
        self.problems: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def open(self, url: str) -> None:
        """Load a page, until all of it is there."""
        self._events.clear()
        self.send("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._read()

    def resize(self, width: int, height: int, *, dark: bool = False, script: bool = True) -> None:
        """A screen of so many CSS pixels; script: whether scripts run."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Emulation.setScriptExecutionDisabled", value=not script)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited."""
        found = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:2000])
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key, as a person presses it."""
        code = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
        text = {"text": "\r"} if key == "Enter" else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **code)

    def screenshot(self, path: Path) -> None:
        """All of the page as a PNG."""
        made = self.send("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(made["data"]))

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv())
        if "method" in message:
            self._events.append(message)
            self.problems += _problems(message["method"], message["params"])
        return message


def _problems(method: str, found: dict[str, Any]) -> list[str]:
    if method == "Runtime.exceptionThrown":
        return [json.dumps(found["exceptionDetails"])[:500]]
    if method == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
        return [found["entry"]["text"]]
    if method == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning", "assert"):
        return [json.dumps(found["args"])[:500]]
    return []


@contextmanager
def browsing(program: str, folder: Path) -> Iterator[Page]:
    """A tab of a new browser, whose profile is in the folder."""
    command = [program, "--headless", "--disable-gpu", "--hide-scrollbars"]
    command += ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses root otherwise
    command += [f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=subprocess.PIPE, text=True) as browser:
        try:
            page = Page(_address(browser))
            try:
                yield page
            finally:
                page.close()
        finally:
            browser.terminate()


def _address(browser: subprocess.Popen[str]) -> str:
    assert browser.stderr is not None
    said = []
    for line in browser.stderr:
        found = re.search(r"DevTools listening on (ws://\S+)", line)
        if found:
            # What it says later is read too: it would wait for that.
            threading.Thread(target=browser.stderr.read, daemon=True).start()
            return found[1]
        said.append(line)
    raise RuntimeError(f"the browser does not start: {''.join(said)[-2000:]}")
