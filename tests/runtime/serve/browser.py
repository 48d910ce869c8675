"""Drives headless Chromium over its debugging pipe: no port, no driver, no package.

The protocol is JSON messages that end with a zero byte, on the descriptors 3 and 4 of
the browser: https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # containers run as root, without namespaces
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--remote-debugging-pipe",
)
# Above those that the browser wants to have.
_LOWEST_FD = 10
_LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)
_ANSWER_S = 15.0


def find_browser() -> str | None:
    """Finds the program, or says that there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """Is a running browser. Made by `open_browser`."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to_browser = to_browser
        self._from_browser = from_browser
        self._buffer = b""
        self._last_id = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Calls a method of the protocol and gives its result."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _ANSWER_S
        while True:
            answer = self._receive(deadline - time.monotonic(), method)
            if answer.get("id") == self._last_id:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def open_page(self, url: str, **options: Any) -> "Page":
        """Opens a page in a window of its own; see `Page`."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        return Page(self, attached["sessionId"], url, **options)

    def _receive(self, seconds: float, method: str) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            left = max(deadline - time.monotonic(), 0)
            is_ready, _, _ = select.select([self._from_browser], [], [], left)
            assert is_ready, f"{method}: the browser does not answer"
            data = os.read(self._from_browser, 1 << 20)
            assert data, f"{method}: the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))


class Page:
    """Is an open page.

    Args:
        browser: Where it is open.
        session: Of the protocol.
        url: What it shows.
        size: Width and height of the window in CSS pixels.
        is_phone: With touch, and the viewport of a phone.
        scheme: `light` or `dark`.
        scale: Pixels of a screenshot per CSS pixel.
    """

    def __init__(
        self,
        browser: Browser,
        session: str,
        url: str,
        *,
        size: tuple[int, int] = (1280, 800),
        is_phone: bool = False,
        scheme: str = "light",
        scale: float = 1.0,
    ) -> None:
        self._browser = browser
        self._session = session
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            self.call(f"{domain}.enable")
        width, height = size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=is_phone,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, answer
        self.wait_for("document.readyState === 'complete'")

    def call(self, method: str, **params: Any) -> Any:
        """Calls a method of the protocol for this page."""
        return self._browser.call(method, self._session, **params)

    def evaluate(self, expression: str) -> Any:
        """Gives the value of a JavaScript expression; waits for a promise."""
        answer = self.call(
            "Runtime.evaluate",
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, expression: str, *, seconds: float = 10.0) -> Any:
        """Waits until an expression is true and gives its value."""
        deadline = time.monotonic() + seconds
        while True:
            value = self.evaluate(expression)
            if value:
                return value
            assert time.monotonic() < deadline, f"never came true: {expression}"
            time.sleep(0.05)

    def screenshot(self) -> bytes:
        """Gives what can be seen, as PNG."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        return base64.b64decode(data)

    def problems(self) -> list[str]:
        """Lists errors, warnings and violations of policies, so far."""
        self.evaluate("0")  # all that has happened before this has been told then
        found = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            method, params = event["method"], event["params"]
            if method == "Log.entryAdded" and params["entry"]["level"] != "info":
                found.append(f"{params['entry']['source']}: {params['entry']['text']}")
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(params["exceptionDetails"]))
            if method == "Runtime.consoleAPICalled" and params["type"] in (
                "error",
                "warning",
                "assert",
            ):
                found.append(json.dumps(params["args"]))
            if method == "Audits.issueAdded":
                found.append(json.dumps(params["issue"]))
        return found

    def requests(self) -> list[str]:
        """Lists the addresses that the page has asked for, so far."""
        self.evaluate("0")
        return [
            event["params"]["request"]["url"]
            for event in self._browser.events
            if event.get("sessionId") == self._session
            and event["method"] == "Network.requestWillBeSent"
        ]


@contextlib.contextmanager
def open_browser(program: str, folder: Path) -> Iterator[Browser]:
    """Starts the browser with a profile of its own, and ends it."""
    child_in, to_browser = os.pipe()
    from_browser, child_out = os.pipe()
    inherited = [
        fcntl.fcntl(fd, fcntl.F_DUPFD, _LOWEST_FD) for fd in (child_in, child_out)
    ]
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", _LAUNCH, *map(str, inherited)),
            *(program, *_FLAGS, f"--user-data-dir={folder}", "about:blank"),
        ],
        pass_fds=inherited,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for fd in (child_in, child_out, *inherited):
        os.close(fd)
    try:
        browser = Browser(to_browser, from_browser)
        yield browser
        browser.call("Browser.close")
    finally:
        os.close(to_browser)
        os.close(from_browser)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
