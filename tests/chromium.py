"""A real browser for the tests: Chromium without a window, spoken to in the DevTools protocol."""

import base64
import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request

import cv2
import numpy as np
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0  # seconds, on a machine that has other things to do


def program():
    """Path of the browser. Without one its tests are skipped, or fail where NST_VIDEO_REQUIRE_BROWSER is set."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        (pytest.fail if os.environ.get("NST_VIDEO_REQUIRE_BROWSER") else pytest.skip)(f"none of {', '.join(NAMES)}")
    return found


def until(condition, what, patience=PATIENCE):
    """The first true value of the condition."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {patience:.0f} s for {what}"
        time.sleep(0.02)
    return value


@contextlib.contextmanager
def browser(folder):
    """A context of a function that opens a new tab at an address; the tabs are closed with it."""
    import websockets.sync.client

    options = [
        "--headless=new",
        *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
        *("--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking"),
        *("--disable-extensions", "--no-proxy-server", "--remote-debugging-port=0", f"--user-data-dir={folder}"),
        "about:blank",
    ]
    with (folder / "chromium.log").open("wb") as told:
        process = subprocess.Popen([program(), *options], stdout=told, stderr=told)

    @contextlib.contextmanager
    def tabs():
        opened = []

        def tab(address="about:blank"):
            request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
            with local.open(request, timeout=PATIENCE) as answer:
                url = json.load(answer)["webSocketDebuggerUrl"]
            options = {"max_size": None, "proxy": None, "compression": None, "ping_interval": None, "close_timeout": 1}
            opened.append(Tab(sockets.enter_context(websockets.sync.client.connect(url, **options))))
            opened[-1].go(address)
            return opened[-1]

        with contextlib.ExitStack() as sockets:
            yield tab
            for each in opened:
                each.send("Page.close")

    try:
        local = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        told = folder / "DevToolsActivePort"

        def said():
            assert process.poll() is None, (folder / "chromium.log").read_text()
            return told.exists() and told.read_text().split()

        port = until(said, "Chromium")[0]
        yield tabs
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Tab:
    """A page that is open in the browser."""

    def __init__(self, socket):
        self.socket, self.number, self.faults = socket, 0, []
        for part in ("Page", "Runtime", "Log"):
            self.send(f"{part}.enable")

    def send(self, method, **params):
        """The result of a command."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            answer = json.loads(self.socket.recv(timeout=left))
            if answer.get("method") == "Runtime.exceptionThrown" or (
                answer.get("method") == "Log.entryAdded" and answer["params"]["entry"]["level"] == "error"
            ):
                self.faults.append(answer["params"])
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
        raise TimeoutError(method)

    def go(self, address):
        """Open an address in this tab."""
        self.send("Page.navigate", url=address)
        until(lambda: self.run("document.readyState") == "complete", address)

    def run(self, script):
        """The value of a script, awaited where it is a promise."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def text(self, selector):
        """What is written there, "" where nothing is seen."""
        return self.run(f"""(() => {{
          const element = document.querySelector({json.dumps(selector)});
          return element?.checkVisibility() ? element.innerText : "";
        }})()""")

    def press(self, key, code=0):
        """A key of the keyboard."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code or ord(key[0].upper()), **text
            )

    def click(self, selector, count=1):
        """The left button of the mouse in the middle of an element."""
        x, y = self._middle(selector)
        for number in range(1, count + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=number)

    def _middle(self, selector):
        return self.run(f"""(() => {{
          const element = document.querySelector({json.dumps(selector)});
          element.scrollIntoView({{block: "nearest"}});
          const at = element.getBoundingClientRect();
          return [at.x + at.width / 2, at.y + at.height / 2];
        }})()""")

    def touch(self, selector):
        """A finger's tap in the middle of an element."""
        at = [dict(zip("xy", self._middle(selector), strict=True))]
        for kind, points in (("touchStart", at), ("touchEnd", [])):
            self.send("Input.dispatchTouchEvent", type=kind, touchPoints=points)

    def size(self, width, height, *, phone=False):
        """Give the page this many pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )

    def screenshot(self):
        """What is seen: the PNG's bytes."""
        return base64.b64decode(self.send("Page.captureScreenshot")["data"])

    def pixels(self):
        """What is seen: uint8 (H, W, 3) RGB."""
        return cv2.imdecode(np.frombuffer(self.screenshot(), np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
