"""The live picture as a web page, for machines without a display: one page, and one WebSocket for all that it shows.

A picture goes to a browser only when the browser has shown the ones before it, so a slow one gets fewer pictures, never
older ones. Each is encoded once for all browsers, and not at all while nobody watches.
"""

import asyncio
import base64
import hashlib
import importlib
import json
import logging
import re
import secrets
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from nst_video.errors import ResourceError, UsageError, missing_package
from nst_video.live.access import listening, refusal, url
from nst_video.live.desk import KEYS, Desk, Setting
from nst_video.live.frames import Shown
from nst_video.live.outputs import Facts
from nst_video.live.overlay import with_original

if TYPE_CHECKING:
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

log = logging.getLogger(__name__)

PAGE, STREAM = "/", "/live"  # the two paths there are
MOST_BROWSERS = 16
MOST_CONNECTIONS = 64  # of which most have not yet said what they want
SHORTEST_TOKEN = 8
IN_FLIGHT = 2  # pictures a browser may have been sent and not yet shown: one being shown while one is on its way
QUALITY = 85  # of the JPEGs
_SAY_EVERY = 0.25  # seconds between two states of the session
_REQUEST_TIME, _PING_TIME, _CLOSE_TIME = 5.0, 20.0, 0.5  # seconds a browser may be silent in
_LONGEST_MESSAGE = 256  # bytes that a browser may send at once
_LATENCIES = 25  # shown pictures that the latency is the median of


def _style_is(index: int) -> Callable[[Setting], bool]:
    return lambda setting: setting.look.style == index


# Which keys have something switched on, for the page to mark.
_ON: Mapping[str, Callable[[Setting], bool]] = {
    "space": lambda setting: setting.view.frozen,
    "c": lambda setting: setting.look.keep_colors,
    "m": lambda setting: setting.look.mirror,
    "d": lambda setting: setting.look.dream,
    "o": lambda setting: setting.view.original != "off",
    "r": lambda setting: setting.view.recording,
    **{str(number): _style_is(number - 1) for number in range(1, 10)},
}


@dataclass(frozen=True)
class _Picture:
    """A picture as it is sent: a number of 4 bytes and the JPEG. captured: None where it is not new."""

    number: int
    message: bytes
    captured: float | None


@dataclass(eq=False)
class _Browser:
    """What is known about one browser. awaited: number of a picture it has not yet shown -> when it was captured."""

    connection: "ServerConnection"
    news: asyncio.Event = field(default_factory=asyncio.Event)
    sent: int = 0
    awaited: dict[int, float | None] = field(default_factory=dict)
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    told: dict[str, object] = field(default_factory=dict)
    told_at: float = 0.0
    urgent: bool = True


class WebPage:
    """An output that anybody with the address can watch, and drive.

    It listens from the start, in a thread of its own. A token is part of the address; it is made where none is given.
    ResourceError where the address cannot be had, or the extra is missing.
    """

    def __init__(self, desk: Desk, *, port: int, host: str = "127.0.0.1", token: str | None = None) -> None:
        if token is not None and len(token) < SHORTEST_TOKEN:
            raise UsageError(
                f"--token has {len(token)} characters; allowed {SHORTEST_TOKEN} or more, or none for a good one"
            )
        self._websockets = _websockets()
        self._desk = desk
        self._socket, self._only_here = listening(host, port)
        self._token = token or secrets.token_urlsafe(16)
        self._url = url(self._socket, self._token)
        self._page, self._headers = _page()
        self._browsers: set[_Browser] = set()
        self._connections: set[Any] = set()
        self._latest: tuple[Shown, Facts] | None = None
        self._picture: _Picture | None = None
        self._encoded_from: tuple[Shown, str] | None = None  # what the picture was made of
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="web page", daemon=True)
        self._thread.start()
        started.result()

    @property
    def url(self) -> str:
        """The address to open in a browser, with the token."""
        return self._url

    def show(self, shown: Shown, facts: Facts) -> None:
        """Take this picture; what is slow about it happens in the page's own thread."""
        self._latest = (shown, facts)
        if self._browsers:
            self._in_thread(self._announce)

    def close(self) -> None:
        """Say goodbye to all browsers and free the port; within a second whatever they do."""
        self._in_thread(self._ending.set)
        self._thread.join()

    # ------------------------------------------------------------------------ all below runs in the page's thread

    def _run(self, started: "Future[None]") -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                log.exception("the web page has ended: %s", error)
            else:
                started.set_exception(error)

    async def _serve(self, started: "Future[None]") -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        async with self._websockets.asyncio.server.serve(
            self._watch,
            sock=self._socket,
            process_request=self._answer,
            create_connection=_counted(self._websockets.asyncio.server.ServerConnection, self._connections),
            compression=None,  # a JPEG does not get smaller
            server_header=None,
            open_timeout=_REQUEST_TIME,
            ping_interval=_PING_TIME,
            ping_timeout=_PING_TIME,
            close_timeout=_CLOSE_TIME,
            max_size=_LONGEST_MESSAGE,
            logger=_silent(),
        ):
            started.set_result(None)
            await self._ending.wait()
            watching = {browser.connection for browser in self._browsers}
            for idle in self._connections - watching:  # which the server would wait for until they say what they want
                idle.transport.abort()

    def _in_thread(self, function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(function)

    def _answer(self, connection: "ServerConnection", request: "Request") -> "Response | None":
        """What a request gets; None: it may go on as a WebSocket."""
        refused = self._refusal(request)
        if refused is not None:
            return self._response(connection, *refused)
        if request.path.partition("?")[0] == PAGE:
            return self._response(connection, 200, self._page, "text/html; charset=utf-8")
        return None

    def _refusal(self, request: "Request") -> tuple[int, str] | None:
        """Status and reason where the request is not for us to answer. What it may know comes after who it is."""
        address = request.path.partition("?")[0]
        hosts, origins = (request.headers.get_all(name) for name in ("Host", "Origin"))
        stranger = refusal(request.path, hosts, origins, only_here=self._only_here, token=self._token)
        if stranger is not None:
            return 403, stranger
        if getattr(request, "method", "GET") != "GET":
            return 405, "only GET"
        if address not in (PAGE, STREAM):
            return 404, "there is nothing here"
        if address == STREAM and len(self._browsers) >= MOST_BROWSERS:
            return 429, f"{MOST_BROWSERS} browsers are watching already"
        return None

    def _response(
        self, connection: "ServerConnection", status: int, text: str, kind: str = "text/plain; charset=utf-8"
    ) -> "Response":
        response = connection.respond(status, text)
        del response.headers["Content-Type"]
        response.headers.update({**self._headers, "Content-Type": kind})
        return response

    async def _watch(self, connection: "ServerConnection") -> None:
        """Serve one browser until it leaves."""
        browser = _Browser(connection)
        self._browsers.add(browser)
        browser.news.set()
        feeding = asyncio.create_task(self._feed(browser))
        try:
            async for message in connection:
                if not self._heed(browser, message):
                    await connection.close(1008, "not understood")
        except self._websockets.ConnectionClosed:
            pass
        finally:
            self._browsers.discard(browser)
            feeding.cancel()
            with suppress(asyncio.CancelledError, self._websockets.ConnectionClosed):
                await feeding

    def _heed(self, browser: _Browser, message: str | bytes) -> bool:
        """Do what a browser says, {"press": key} or {"shown": number}; False where that means nothing."""
        try:
            said = json.loads(message)
        except ValueError:
            return False
        match said:
            case {"press": str(key)}:
                self._desk.press(key)
                for each in self._browsers:
                    each.urgent = True
                self._announce()
            case {"shown": int(number)}:
                self._was_shown(browser, number)
                browser.news.set()
            case _:
                return False
        return True

    def _was_shown(self, browser: _Browser, number: int) -> None:
        """The time until the browser's word is here is counted, so the latency is if anything too long."""
        captured = browser.awaited.get(number)
        if captured is not None:
            browser.latencies.append(time.monotonic() - captured)
        browser.awaited = {later: when for later, when in browser.awaited.items() if later > number}

    def _announce(self) -> None:
        for browser in self._browsers:
            browser.news.set()

    async def _feed(self, browser: _Browser) -> None:
        """Send what is new, for as long as the browser is there."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(browser.news.wait(), _SAY_EVERY)
            browser.news.clear()
            try:
                await self._tell(browser)
                await self._send_picture(browser)
            except self._websockets.ConnectionClosed:
                return
            except Exception as error:
                log.exception("the web page cannot be kept up to date: %s", error)
                await browser.connection.close(1011)
                return

    async def _tell(self, browser: _Browser) -> None:
        """Send those parts of the state that the browser does not know, not too often unless a key was pressed."""
        now = time.monotonic()
        if not browser.urgent and now - browser.told_at < _SAY_EVERY:
            return
        browser.urgent, browser.told_at = False, now
        new = {name: value for name, value in self._state(browser).items() if browser.told.get(name) != value}
        if new:
            browser.told |= new
            await browser.connection.send(json.dumps(new))

    def _state(self, browser: _Browser) -> dict[str, object]:
        setting = self._desk.setting
        if self._latest is None:
            return {"keys": _keys(setting, ()), "facts": [], "message": "waiting for the first picture"}
        shown, facts = self._latest
        return {
            "keys": _keys(setting, facts.styles),
            "facts": _facts(shown, facts, setting, browser.latencies),
            "message": facts.message,
        }

    async def _send_picture(self, browser: _Browser) -> None:
        if self._latest is None or len(browser.awaited) >= IN_FLIGHT:
            return
        picture = self._newest(*self._latest)
        if picture.number > browser.sent:
            # The first one may have been there for long.
            browser.awaited[picture.number] = picture.captured if browser.sent else None
            browser.sent = picture.number
            await browser.connection.send(picture.message)

    def _newest(self, shown: Shown, facts: Facts) -> _Picture:
        """The picture as it is sent, encoded unless it was. The encoder takes 1 to 2 ms at 512x288, without the GIL."""
        source = (shown, self._desk.setting.view.original)
        old, before = self._picture, self._encoded_from
        if old is not None and before is not None and before[0] is shown and before[1] == source[1]:
            return old
        number = old.number + 1 if old else 1
        new = before is None or before[0].number != shown.number
        jpeg = _jpeg(with_original(*source))
        self._picture = _Picture(number, number.to_bytes(4, "big") + jpeg, shown.captured if new else None)
        self._encoded_from = source
        return self._picture


def _counted(kind: Any, connections: set[Any]) -> Any:
    """The kind of connection with those that there are kept in a set; one that is too many is ended at once."""

    class Counted(kind):
        def connection_made(self, transport: asyncio.Transport) -> None:
            connections.add(self)
            super().connection_made(transport)
            if len(connections) > MOST_CONNECTIONS:
                transport.abort()

        def connection_lost(self, error: Exception | None) -> None:
            connections.discard(self)
            super().connection_lost(error)

    return Counted


def _jpeg(rgb: np.ndarray) -> bytes:
    """uint8 (H, W, 3) RGB -> JPEG."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise ResourceError(f"OpenCV has not encoded a picture of {rgb.shape[1]}x{rgb.shape[0]} pixels as JPEG")
    return data.tobytes()


def _keys(setting: Setting, styles: tuple[str, ...]) -> list[dict[str, object]]:
    """The keys that mean something now, in the order of their table; on: None where a key switches nothing."""
    return [
        {
            "key": name,
            "meaning": styles[int(name) - 1] if name.isdigit() else key.meaning,
            "on": _ON[name](setting) if name in _ON else None,
        }
        for name, key in KEYS.items()
        if not name.isdigit() or int(name) <= len(styles)
    ]


def _facts(shown: Shown, facts: Facts, setting: Setting, latencies: "deque[float]") -> list[tuple[str, str]]:
    """What the page says about the session: (name, value)."""
    here = f"{1000 * statistics.median(latencies):.0f} ms" if latencies else "–"
    return [
        ("frames/s", f"{facts.rate:.1f}" + (f" of {facts.camera_rate:.1f}" if facts.camera_rate else "")),
        ("latency to here", here),
        ("until painted", f"{1000 * facts.latency:.0f} ms"),
        ("painted at", f"{shown.size[0]}×{shown.size[1]}"),
        ("evaluations", str(shown.evaluations)),
        ("dropped", str(facts.dropped)),
        ("device", shown.device),
        *([("style", f"{setting.look.style + 1}/{len(facts.styles)} {shown.style}")] if facts.styles else []),
        ("strength", f"{setting.look.strength:.2f}"),
        ("brush", f"{setting.look.brush:.2f}"),
        ("original", setting.view.original),
        *([("recording", facts.recording)] if facts.recording else []),
        *([("not recorded", f"{facts.lost} frames")] if facts.lost else []),
    ]


def _websockets() -> Any:
    """The package; ResourceError where it is missing."""
    try:
        importlib.import_module("websockets.asyncio.server")
        return importlib.import_module("websockets")
    except ImportError:
        raise missing_package("--serve", "the package websockets", "serve") from None


def _page() -> tuple[str, dict[str, str]]:
    """The page, and headers that allow it its own script and style, its own WebSocket, and nothing else."""
    text = files("nst_video.live").joinpath("page.html").read_text(encoding="utf-8")
    allowed = {
        tag: " ".join(map(_hash, re.findall(f"<{tag}>(.*?)</{tag}>", text, re.S))) for tag in ("script", "style")
    }
    policy = (
        f"default-src 'none'; script-src {allowed['script']}; style-src {allowed['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _silent() -> logging.Logger:
    """A log for what strangers send, which is not worth a line in the terminal."""
    logger = logging.Logger("websockets")
    logger.addHandler(logging.NullHandler())
    return logger
