"""Chromium for tests that press keys: its DevTools protocol over two pipes, which needs no further package.

    with Browser(page, profile=folder) as browser:
        browser.press("Tab")
        assert browser.value("document.activeElement.tagName") == "BUTTON"

The protocol: https://chromedevtools.github.io/devtools-protocol/. With ``--remote-debugging-pipe``, Chromium reads
messages from descriptor 3 and writes to 4; a zero byte ends each message.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

CHROMIUM: Final = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
# Key codes of Windows, as the protocol asks for, and the text that a key types.
_KEYS: Final = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "ArrowDown": (40, ""), "End": (35, "")}


class Browser:
    """A page in headless Chromium.

    Args:
        page: The HTML file.
        profile: An empty folder for what Chromium keeps.
        width: Width of the window in pixels.
    """

    def __init__(self, page: Path, profile: Path, *, width: int = 1280) -> None:
        assert CHROMIUM is not None
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        flags += [f"--user-data-dir={profile}", f"--window-size={width},1200", "about:blank"]
        # the shell gives the pipes the numbers that Chromium expects
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash", CHROMIUM, *flags],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._n, self._session, self._rest = 0, "", b""
        target = self._ask("Target.createTarget", url=page.as_uri())["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._ask("Emulation.setFocusEmulationEnabled", enabled=True)
        while self.value("location.protocol + document.readyState") != "file:complete":
            pass

    def value(self, script: str) -> Any:
        """What an expression of JavaScript gives."""
        found = self._ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, *, times: int = 1, shift: bool = False) -> None:
        """Press and release a key."""
        code, text = _KEYS[key]
        same = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        for _ in range(times):
            self._ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **same)
            self._ask("Input.dispatchKeyEvent", type="keyUp", **same)

    def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._n += 1
        message: dict[str, Any] = {"id": self._n, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._n:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._read, 65536)
            assert more, "Chromium has ended"
            self._rest += more
        first, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(first))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(timeout=60)
        os.close(self._write)
        os.close(self._read)
