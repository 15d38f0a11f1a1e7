"""A headless Chromium that a test drives through a pipe by the DevTools protocol: opens, types, clicks, looks."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--remote-debugging-pipe", "--host-resolver-rules=MAP evil.example 127.0.0.1"),
)
SECONDS = 30


class Browser:
    """One browser.

    Args:
        profile: New folder.
    """

    def __init__(self, profile: Path) -> None:
        (read, self._to), (self._from, write) = os.pipe(), os.pipe()
        low = [os.dup(read), os.dup(write)]  # so that neither is 3 or 4 itself while those are set

        def pipes() -> None:
            inbound, outbound = os.dup(low[0]), os.dup(low[1])
            os.dup2(inbound, 3), os.dup2(outbound, 4)

        self._process = subprocess.Popen(
            [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for one in (read, write, *low):
            os.close(one)
        self._number, self._rest = 0, b""

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """What the browser answers."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        os.write(self._to, json.dumps({**message, **({"sessionId": session} if session else {})}).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                received = os.read(self._from, 1 << 16)
                assert received, "the browser has ended"
                self._rest += received
            line, self._rest = self._rest.split(b"\0", 1)
            answer = json.loads(line)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return dict(answer["result"])

    def open(self, address: str, width: int = 1280, height: int = 900) -> "Page":
        """A page in a window of its own."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        page.call("Page.enable")
        phone = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        page.call("Emulation.setDeviceMetricsOverride", **phone)
        page.call("Page.navigate", url=address)
        return page

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        os.close(self._to), os.close(self._from)


class Page:
    """A page, by its session."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression; None while a page is being left."""
        try:
            return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")
        except RuntimeError:
            return None

    def until(self, expression: str) -> Any:
        """The value of an expression, as soon as it is true."""
        end = time.monotonic() + SECONDS
        while not (value := self.value(expression)):
            assert time.monotonic() < end, f"never true: {expression}; the page says {self.text()!r}"
            time.sleep(0.05)
        return value

    def text(self) -> str:
        return str(self.value("document.body && document.body.innerText"))

    def type(self, selector: str, text: str) -> None:
        """Put the cursor there, and type."""
        self.until(f"document.querySelector({json.dumps(selector)})?.focus() === undefined")
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of what is seen of an element."""
        place = self.until(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); if (!e) return null;"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser for as long as the block lasts."""
    browser = Browser(profile)
    try:
        yield browser
    finally:
        browser.close()
