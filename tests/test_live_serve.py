"""The web page of a live session: what it sends, whom it refuses, and how it works in a real browser."""

import contextlib
import http.client
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from chromium import PATIENCE, browser, until
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from nst_video.errors import ResourceError, UsageError
from nst_video.live import serve
from nst_video.live.access import listening, url
from nst_video.live.desk import KEYS, Desk
from nst_video.live.frames import Shown
from nst_video.live.outputs import Facts
from nst_video.live.serve import MOST_BROWSERS, MOST_CONNECTIONS, WebPage

STYLES = ("mosaic", "oil", "glass")
SIZE = (96, 64)
TOKEN = "a-token-for-the-tests"


def color(number):
    """Colour of the frame with this number, uint8 RGB: neighbours differ by more than a JPEG loses."""
    return np.array([(number * 83) % 256, (number * 151) % 256, (number * 59) % 256], np.uint8)


def painted(number, *, ago=0.05):
    """A frame of one colour, of a camera that saw grey."""
    width, height = SIZE
    rgb = np.full((height, width, 3), color(number))
    now = time.monotonic()
    return Shown(rgb, np.full_like(rgb, 128), number, now - ago, now, (48, 32), 4, "mosaic", "cpu")


def facts(desk, **known):
    return Facts(time.monotonic(), desk.setting, **{"rate": 24.0, "camera_rate": 30.0, "styles": STYLES, **known})


@pytest.fixture
def desk():
    return Desk(styles=lambda: len(STYLES))


@pytest.fixture
def page(desk):
    with contextlib.closing(WebPage(desk, port=0, token=TOKEN)) as page:
        yield page


@pytest.fixture
def moving(page, desk):
    """The page while a session shows frame after frame; a list that holds the number of the newest."""
    newest, end = [0], threading.Event()

    def session():
        while not end.wait(1 / 24):
            newest[0] += 1
            page.show(painted(newest[0]), facts(desk, dropped=newest[0], latency=0.08))

    thread = threading.Thread(target=session)
    thread.start()
    yield newest
    end.set()
    thread.join()


def port(page):
    return int(page.url.split(":")[2].split("/")[0])


def query_of(page):
    """The token of its address: `?token=...`."""
    return page.url[page.url.index("?") :]


def ask(page, path="/", method="GET", query=None, **headers):
    """Status, headers and text of an answer, with the token unless another query is given."""
    path += query_of(page) if query is None else query
    connection = http.client.HTTPConnection("127.0.0.1", port(page), timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read().decode()


def raw_connection(page):
    return socket.create_connection(("127.0.0.1", port(page)), timeout=PATIENCE)


class Viewer:
    """A browser that says nothing of its own accord."""

    def __init__(self, page, query=None, **options):
        address = f"ws://127.0.0.1:{port(page)}/live{query_of(page) if query is None else query}"
        self.connecting = connect(
            address, proxy=None, max_size=None, open_timeout=PATIENCE, ping_interval=None, **options
        )
        self.state, self.pictures = {}, []

    def __enter__(self):
        self.socket = self.connecting.__enter__()
        return self

    def __exit__(self, *error):
        self.connecting.__exit__(*error)

    def hear(self, timeout=PATIENCE):
        """Take one message."""
        message = self.socket.recv(timeout=timeout)
        if isinstance(message, str):
            self.state |= json.loads(message)
        else:
            data = np.frombuffer(message[4:], np.uint8)
            self.pictures.append((int.from_bytes(message[:4], "big"), cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1]))

    def drain(self):
        """Take what comes until nothing has come for a while."""
        with contextlib.suppress(TimeoutError):
            while True:
                self.hear(timeout=0.7)

    def ended(self):
        """The code that the connection ends with."""
        try:
            while True:
                self.hear()
        except ConnectionClosed as closed:
            return closed.rcvd.code

    def picture(self):
        """The next picture: its number and uint8 (H, W, 3) RGB."""
        count = len(self.pictures)
        while len(self.pictures) == count:
            self.hear()
        return self.pictures[-1]

    def say(self, **what):
        self.socket.send(json.dumps(what))

    def until(self, condition):
        """Listen until the state is so."""
        deadline = time.monotonic() + PATIENCE
        while not (self.state and condition(self.state)):
            assert time.monotonic() < deadline, self.state
            self.hear()

    def fact(self, name):
        return dict(self.state.get("facts", [])).get(name)


def near(rgb, number):
    return np.abs(rgb.astype(int) - color(number)).max() <= 12


# ---------------------------------------------------------------------------------------------- what is sent


def test_the_page_is_whole_and_may_load_nothing_else(page):
    status, headers, text = ask(page)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Server" not in headers
    assert " src=" not in text
    assert text.count("<script") == text.count("<style") == text.count("href=") == 1


def test_a_picture_is_the_frame(page, desk):
    with Viewer(page) as viewer:
        page.show(painted(7), facts(desk))
        number, rgb = viewer.picture()
        assert (number, rgb.shape) == (1, (SIZE[1], SIZE[0], 3))
        assert near(rgb, 7)


def test_the_original_beside_and_over_the_picture(page, desk):
    with Viewer(page) as viewer:
        page.show(painted(7), facts(desk))
        viewer.say(shown=viewer.picture()[0])
        viewer.say(press="o")
        number, rgb = viewer.picture()
        viewer.say(shown=number)
        assert rgb.shape == (SIZE[1], 2 * SIZE[0], 3)
        assert np.abs(rgb[:, : SIZE[0] - 16].astype(int) - 128).max() <= 4
        assert near(rgb[:, SIZE[0] + 16 :], 7)
        viewer.say(press="o")
        _, rgb = viewer.picture()
        assert np.abs(rgb.astype(int) - (color(7).astype(int) + 128) // 2).max() <= 8


def test_who_comes_late_gets_the_picture_that_is_there(page, desk):
    page.show(painted(3), facts(desk))
    with Viewer(page) as viewer:
        assert near(viewer.picture()[1], 3)


def test_a_slow_browser_gets_no_backlog(page, desk):
    with Viewer(page) as slow:
        for number in range(1, 101):
            page.show(painted(number), facts(desk))
            time.sleep(0.005)
        slow.drain()
        assert len(slow.pictures) == serve.IN_FLIGHT
        slow.say(shown=slow.pictures[-1][0])
        assert near(slow.picture()[1], 100)
        slow.drain()
        assert len(slow.pictures) == serve.IN_FLIGHT + 1


def test_a_browser_that_reads_nothing_holds_up_neither_the_session_nor_the_others(page, desk):
    with Viewer(page), Viewer(page) as other:
        for number in range(1, 201):
            page.show(painted(number), facts(desk))
            if number % 50 == 0:
                shown, rgb = other.picture()
                while not near(rgb, number):
                    other.say(shown=shown)
                    shown, rgb = other.picture()
                assert near(rgb, number)
                other.say(shown=shown)


def test_encoded_once_for_all_and_not_at_all_for_nobody(page, desk, monkeypatch):
    encoded = []
    encode = serve._jpeg
    monkeypatch.setattr(serve, "_jpeg", lambda rgb: encoded.append(rgb) or encode(rgb))
    for number in range(1, 51):
        page.show(painted(number), facts(desk))
    assert encoded == []
    with contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(Viewer(page)) for _ in range(5)]
        assert all(near(viewer.picture()[1], 50) for viewer in viewers)
        assert len(encoded) == 1
        page.show(painted(51), facts(desk))
        assert all(near(viewer.picture()[1], 51) for viewer in viewers)
        assert len(encoded) == 2


def test_what_is_said_of_the_session(page, desk):
    with Viewer(page) as viewer:
        viewer.until(lambda state: state["message"] == "waiting for the first picture")
        page.show(painted(1), facts(desk, dropped=12, recording="live.mp4", message="the camera is gone"))
        viewer.until(lambda state: state["message"] == "the camera is gone")
        told = dict(viewer.state["facts"])
        assert told["frames/s"] == "24.0 of 30.0"
        assert (told["painted at"], told["evaluations"], told["dropped"]) == ("48×32", "4", "12")
        assert (told["device"], told["style"], told["recording"]) == ("cpu", "1/3 mosaic", "live.mp4")
        assert (told["strength"], told["brush"]) == ("1.00", "1.00")
        page.show(painted(2), facts(desk))
        viewer.until(lambda state: state["message"] == "" and viewer.fact("recording") is None)


def test_the_keys_are_those_of_the_table(page, desk):
    page.show(painted(1), facts(desk))
    with Viewer(page) as viewer:
        viewer.until(lambda state: len(state["keys"]) > 20)
        told = {key["key"]: key["meaning"] for key in viewer.state["keys"]}
        digits = {str(number): name for number, name in enumerate(STYLES, 1)}
        assert told == {name: key.meaning for name, key in KEYS.items() if not name.isdigit()} | digits


def test_everything_that_can_be_switched_on_is_marked(desk):
    def on():
        return {key["key"] for key in serve._keys(desk.setting, STYLES) if key["on"]}

    assert on() == {"1", "m"}  # the first style, mirrored
    for key in "2mcdor":
        desk.press(key)
    desk.press("space")
    assert on() == {"2", "c", "d", "o", "r", "space"}


def test_keys_reach_the_desk_and_all_browsers_see_it(page, desk):
    page.show(painted(1), facts(desk))
    with Viewer(page) as one, Viewer(page) as other:
        one.say(press="n")
        one.say(press="+")
        one.say(press="no such key")
        other.until(lambda state: other.fact("strength") == "1.25")
        assert desk.setting.look.style == 1
        assert [key["key"] for key in other.state["keys"] if key["on"]] == ["2", "m"]


def test_the_latency_counts_from_the_capture_to_the_word_that_it_was_shown(page, desk):
    with Viewer(page) as viewer:
        page.show(painted(1, ago=3600), facts(desk))  # who comes late is not shown how late
        viewer.say(shown=viewer.picture()[0])
        page.show(painted(2, ago=0.5), facts(desk))
        number, _ = viewer.picture()
        viewer.until(lambda state: viewer.fact("latency to here") == "–")
        viewer.say(shown=number)
        viewer.until(lambda state: viewer.fact("latency to here") != "–")
        assert 500 <= float(viewer.fact("latency to here").split()[0]) < 1e6


def test_a_picture_that_is_shown_again_has_no_latency(page, desk):
    again = painted(2, ago=0.0)
    with Viewer(page) as viewer:
        page.show(painted(1), facts(desk))
        viewer.say(shown=viewer.picture()[0])
        page.show(again, facts(desk))
        viewer.say(shown=viewer.picture()[0])
        viewer.until(lambda state: viewer.fact("latency to here") not in (None, "–"))
        said = viewer.fact("latency to here")
        time.sleep(0.3)
        viewer.say(press="o")
        viewer.say(shown=viewer.picture()[0])
        viewer.drain()
        assert viewer.fact("latency to here") == said


# ---------------------------------------------------------------------------------------------- who is refused

EVIL = "evil.example"


@pytest.mark.parametrize("path", ["/", "/live", "/nothing"])
@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"Host": EVIL}, "only for this machine"),
        ({"Host": f"{EVIL}:8080"}, "only for this machine"),
        ({"Host": "localhost.evil.example"}, "only for this machine"),
        ({"Host": "192.0.2.1"}, "only for this machine"),
        ({"Host": "[::1"}, "only for this machine"),
        ({"Host": ""}, "only for this machine"),
        ({"Origin": f"http://{EVIL}"}, "not from another page"),
        ({"Origin": "null"}, "not from another page"),
        ({"Origin": "http://127.0.0.1:1"}, "not from another page"),
        ({"Origin": "http://["}, "not from another page"),
    ],
)
def test_requests_from_elsewhere_are_refused(page, path, headers, reason):
    status, answered, text = ask(page, path, **headers)
    assert status == 403
    assert reason in text
    assert "Content-Security-Policy" in answered


def test_through_a_tunnel_it_may_have_another_port(page):
    assert ask(page, Host="localhost:9999")[0] == 200
    assert ask(page, Host="[::1]:9999", Origin="http://[::1]:9999")[0] == 200


@pytest.mark.parametrize("origin", [f"http://{EVIL}", "null", "http://127.0.0.1:1"])
def test_another_page_gets_no_stream(page, origin):
    with pytest.raises(InvalidStatus, match="403"), Viewer(page, origin=origin):
        pass


def test_the_own_page_gets_the_stream(page, desk):
    page.show(painted(1), facts(desk))
    with Viewer(page, origin=f"http://127.0.0.1:{port(page)}") as viewer:
        assert near(viewer.picture()[1], 1)


@pytest.mark.parametrize(
    "query",
    ["", "?token=", "?token=wrong", f"?token={TOKEN}x", f"?token={TOKEN[:-1]}", "?token=%ff", "?Token=" + TOKEN],
)
def test_without_the_token_there_is_nothing(page, query):
    for path in ("/", "/live", "/nothing"):
        status, _, text = ask(page, path, query=query)
        assert (status, text.strip()) == (403, "the address needs the token that the terminal shows")
    with pytest.raises(InvalidStatus, match="403"), Viewer(page, query):
        pass


def test_with_the_token_there_is_everything(page, desk):
    assert page.url.endswith(f"/?token={TOKEN}")
    page.show(painted(1), facts(desk))
    assert ask(page, query=f"?token={TOKEN}")[0] == 200
    assert ask(page, query=f"?token={TOKEN}", Host="laptop.local")[0] == 403  # it still listens on this machine only
    with Viewer(page, f"?token={TOKEN}") as viewer:
        assert near(viewer.picture()[1], 1)
        viewer.say(press="n")
        until(lambda: desk.setting.look.style == 1, "the key")


@pytest.mark.parametrize(("only_here", "host"), [(True, "localhost:8080"), (False, "laptop.local:8080")])
def test_a_token_is_made_whoever_can_reach_it(desk, monkeypatch, only_here, host):
    monkeypatch.setattr(serve, "listening", lambda _, port: (listening("127.0.0.1", port)[0], only_here))
    tokens = set()
    for _ in range(2):
        with contextlib.closing(WebPage(desk, port=0)) as page:
            tokens.add(page.url.partition("?token=")[2])
            assert ask(page, query="")[0] == ask(page, "/live", query="")[0] == 403  # other accounts of the machine too
            assert ask(page, Host=host)[0] == 200
            assert ask(page, "/live", Host=host, Origin=f"http://{host}")[0] == 426
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 20


@pytest.mark.parametrize(
    "path", ["/page.html", "/live/", "//", "/../serve.py", "/%2e%2e/serve.py", "/favicon.ico", "//["]
)
def test_there_is_one_page_only(page, path):
    assert ask(page, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_only_get(page, desk, method):
    try:
        status = ask(page, "/live", method)[0]
    except http.client.HTTPException:  # older servers end the connection without a word
        status = None
    assert status in (None, 400, 405)
    assert ask(page)[0] == 200


def test_a_request_has_its_bounds(page):
    for request in (b"GET /" + b"a" * 100_000, b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000, b"\x00" * 100):
        with raw_connection(page) as raw, contextlib.suppress(ConnectionError):
            raw.sendall(request + b"\r\n\r\n")
            answer = raw.recv(100)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert ask(page)[0] == 200


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("x", 1008),
        ("[1]", 1008),
        ('{"press": 1}', 1008),
        ('{"shown": "1"}', 1008),
        ("[" * 250, 1008),
        (b"\xff\xfe", 1008),
        ('{"press": "' + "n" * 300 + '"}', 1009),
    ],
)
def test_what_a_browser_would_not_say_ends_its_connection(page, desk, message, code, caplog):
    with Viewer(page) as viewer:
        viewer.socket.send(message)
        assert viewer.ended() == code
    assert desk.setting == Desk().setting
    assert ask(page)[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_number_of_browsers_is_bounded(page, desk):
    page.show(painted(1), facts(desk))
    with contextlib.ExitStack() as stack:
        viewers = [stack.enter_context(Viewer(page)) for _ in range(MOST_BROWSERS)]
        assert all(near(viewer.picture()[1], 1) for viewer in viewers)
        with pytest.raises(InvalidStatus, match="429"), Viewer(page):
            pass
        assert ask(page)[0] == 200
        viewers[0].socket.close()
        until(lambda: ask(page, "/live")[0] == 426, "a place")
        with Viewer(page) as viewer:
            assert near(viewer.picture()[1], 1)


def test_the_number_of_connections_is_bounded(desk, monkeypatch):
    monkeypatch.setattr(serve, "_REQUEST_TIME", 10 * PATIENCE)  # nothing else ends the one that is too many
    with contextlib.closing(WebPage(desk, port=0)) as page:
        check_the_number_of_connections(page)


def check_the_number_of_connections(page):
    with contextlib.ExitStack() as stack:
        for _ in range(MOST_CONNECTIONS):
            stack.enter_context(raw_connection(page))
        until(lambda: len(page._connections) == MOST_CONNECTIONS, "the connections")
        with raw_connection(page) as one_more, contextlib.suppress(ConnectionResetError):
            assert one_more.recv(1) == b""
    until(lambda: not page._connections, "the connections to end")
    assert ask(page)[0] == 200


# ---------------------------------------------------------------------------------------------- begin and end


def test_a_port_that_is_taken_is_one_line(page, desk):
    with pytest.raises(ResourceError) as error:
        WebPage(desk, port=port(page))
    assert str(error.value) == (
        f"port {port(page)} of 127.0.0.1 cannot be had: another program uses it; choose another port with --serve"
    )
    assert error.value.exit_code == 4


@pytest.mark.parametrize("host", ["no such host", "192.0.2.1", "a" * 100])
def test_a_host_that_is_not_this_one_is_one_line(desk, host):
    with pytest.raises(ResourceError, match=f"^port 1234 of {host} cannot be had: .*--host") as error:
        WebPage(desk, port=1234, host=host)
    assert "\n" not in str(error.value)


def test_a_token_that_can_be_guessed_is_refused(desk):
    with pytest.raises(UsageError, match="--token has 3 characters; allowed 8 or more"):
        WebPage(desk, port=0, token="abc")


def test_without_the_extra_it_says_how_to_install_it(desk, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "websockets"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets", None)
    with pytest.raises(ResourceError) as error:
        WebPage(desk, port=0)
    assert 'pip install ".[serve]"' in str(error.value)


@pytest.mark.parametrize(
    ("bound", "token", "shown"),
    [
        ("127.0.0.1", "secret", "http://127.0.0.1:8080/?token=secret"),
        ("::1", "secret", "http://[::1]:8080/?token=secret"),
        ("192.0.2.7", "s&t", "http://192.0.2.7:8080/?token=s%26t"),
    ],
)
def test_the_address_to_open(bound, token, shown):
    class Listening:
        def getsockname(self):
            return bound, 8080

    assert url(Listening(), token) == shown


def test_of_all_addresses_one_is_shown():
    class Listening:
        def getsockname(self):
            return "0.0.0.0", 8080

    assert url(Listening(), TOKEN).startswith("http://")
    assert "0.0.0.0" not in url(Listening(), TOKEN)


def test_the_end_is_said_and_the_port_is_free(desk):
    page = WebPage(desk, port=0)
    page.show(painted(1), facts(desk))
    with Viewer(page) as viewer:
        viewer.picture()
        page.close()
        assert viewer.ended() == 1001
    page.show(painted(2), facts(desk))  # one that comes late does no harm
    page.close()
    assert not page._thread.is_alive()
    WebPage(desk, port=port(page)).close()


def test_a_browser_that_hangs_does_not_hold_up_the_end(desk):
    page = WebPage(desk, port=0)
    with raw_connection(page) as raw, raw_connection(page):  # the other one never says what it wants
        raw.sendall(
            f"GET /live{query_of(page)} HTTP/1.1\r\n".encode()
            + b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert raw.recv(12) == b"HTTP/1.1 101"
        begun = time.monotonic()
        page.close()
        assert time.monotonic() - begun < 4  # a second by design; it would wait five for the other otherwise


# ---------------------------------------------------------------------------------------------- in a real browser


@pytest.fixture(scope="module")
def tabs(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as tabs:
        yield tabs


@pytest.fixture
def tab(tabs):
    with tabs() as tab:
        yield tab


NUMBER = "Number(document.querySelector('canvas').dataset.number ?? 0)"
# The middle of the picture, and the number of the picture.
MIDDLE = f"""(() => {{const c = document.querySelector('canvas');
  return [...c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data.slice(0, 3), {NUMBER}]}})()"""


# A browser that has no time for the server's goodbye finds the connection lost.
GONE = ("The session has ended", "Connection lost")


def test_the_picture_moves(moving, page, tab):
    seen = tab(page.url)
    until(lambda: seen.run(NUMBER) > 3, "pictures")
    fed = {}
    looks = set()
    for _ in range(5):
        before = seen.run(NUMBER)
        until(lambda before=before: seen.run(NUMBER) > before, "another picture")
        pixel = np.array(seen.run(MIDDLE)[:3])
        newest = moving[0]
        fed |= {number: color(number) for number in range(1, newest + 1)}
        assert any(np.abs(pixel - each.astype(int)).max() <= 12 for each in list(fed.values())[-40:])
        looks.add(tuple(pixel))
    assert len(looks) >= 3
    assert seen.run("[document.querySelector('canvas').width, document.querySelector('canvas').height]") == list(SIZE)
    assert seen.text("#notice") == ""
    assert not seen.faults


def test_what_the_screen_shows_is_the_frame(page, desk, tab):
    seen = tab(page.url)
    seen.size(1000, 700)
    for number in (1, 2, 3):
        page.show(painted(number), facts(desk))

        def there(number=number):
            height, width = (pixels := seen.pixels()).shape[:2]
            return near(pixels[height // 3, width // 3], number)

        assert until(there, f"frame {number} on the screen")


def test_keys_of_the_keyboard(moving, page, desk, tab):
    seen = tab(page.url)
    until(lambda: seen.run(NUMBER) > 0, "a picture")
    seen.press("n")
    until(lambda: desk.setting.look.style == 1, "the next style")
    until(lambda: seen.run("document.querySelector('[data-key=\"2\"]').ariaPressed") == "true", "its mark")
    seen.press("+")
    seen.press("]")
    until(lambda: (desk.setting.look.strength, desk.setting.look.brush) == (1.25, 1.25), "strength and brush")
    seen.press(" ")
    until(lambda: desk.setting.view.frozen, "the freeze")
    seen.press("r")
    until(lambda: seen.text("#recording") == "● recording", "the mark of the recording")
    seen.press("1")
    until(lambda: desk.setting.look.style == 0, "the first style")
    before = desk.setting
    for key in ("i", "h"):
        seen.press(key)
    assert seen.text("#facts") == seen.text("#keys") == ""
    seen.press("h")
    seen.press("Escape", 27)
    seen.press("s")
    until(lambda: desk.setting.view.snapshots == 1, "the snapshot")
    assert desk.setting.look == before.look
    assert not desk.setting.view.quit
    assert not seen.faults


def test_buttons_say_what_the_keys_mean_and_do_it(moving, page, desk, tab):
    seen = tab(page.url)
    until(lambda: seen.run(NUMBER) > 0, "a picture")
    shown = until(lambda: seen.text("#keys"), "the buttons")
    digits = tuple("123456789")
    assert all(key.meaning in shown for name, key in KEYS.items() if name not in digits)
    assert all(name in shown for name in STYLES)
    seen.click('[data-key="n"]')
    until(lambda: desk.setting.look.style == 1, "the next style")
    seen.click('[data-key="c"]')
    until(lambda: desk.setting.look.keep_colors, "the colours kept")
    until(lambda: seen.run("document.querySelector('[data-key=c]').ariaPressed") == "true", "its mark")
    seen.press(" ")  # presses the button that has the focus, and freezes nothing
    until(lambda: not desk.setting.look.keep_colors, "the colours painted")
    assert not desk.setting.view.frozen


def test_a_phone(moving, page, desk, tab):
    seen = tab(page.url)
    seen.size(390, 844, phone=True)
    until(lambda: seen.run(NUMBER) > 0, "a picture")
    seen.touch('[data-key="n"]')
    until(lambda: desk.setting.look.style == 1, "the next style")
    assert seen.run("document.documentElement.scrollWidth") == 390
    buttons = "[...document.querySelectorAll('#keys button')]"
    assert seen.run(f"{buttons}.filter(b => b.offsetHeight < 44 || b.scrollWidth > b.clientWidth).length") == 0
    seen.touch('[data-key="h"]')
    until(lambda: seen.text("#keys") == "", "the keys to go")
    seen.touch("#more")
    until(lambda: seen.text("#keys") != "", "the keys to come back")


def test_quitting_is_asked_about(moving, page, desk, tab):
    seen = tab(page.url)
    until(lambda: seen.run(NUMBER) > 0, "a picture")
    seen.press("q")
    until(lambda: seen.run("document.querySelector('#quit').open"), "the question")
    seen.press("Escape", 27)
    until(lambda: not seen.run("document.querySelector('#quit').open"), "the question to go")
    assert not desk.setting.view.quit
    seen.click('[data-key="q"]')
    seen.click("#end")
    until(lambda: desk.setting.view.quit, "the end")


def test_the_information_is_up_to_date(moving, page, desk, tab):
    seen = tab(page.url)
    pairs = "[...document.querySelectorAll('#facts div')].map(d => [...d.children].map(c => c.innerText))"
    figures = f"Object.fromEntries({pairs})"
    until(lambda: seen.run(figures).get("latency to here", "–") != "–", "a latency")
    first = seen.run(figures)
    assert float(first["latency to here"].removesuffix(" ms")) >= 50  # painted 50 ms after it was captured
    assert first["until painted"] == "80 ms"
    assert first["frames/s"] == "24.0 of 30.0"
    until(lambda: int(seen.run(figures)["dropped"]) > int(first["dropped"]), "more dropped frames")


def test_full_screen(moving, page, tab):
    seen = tab(page.url)
    until(lambda: seen.run(NUMBER) > 0, "a picture")
    full = "document.fullscreenElement?.id ?? ''"
    seen.press("f")
    until(lambda: seen.run(full) == "stage", "full screen")
    seen.press("f")
    until(lambda: seen.run(full) == "", "the window")
    seen.click("#stage", count=2)
    assert until(lambda: seen.run(full) == "stage", "full screen")


def test_a_wrong_token_in_the_browser(page, desk, tab):
    page.show(painted(1), facts(desk))
    seen = tab(page.url[:-1])
    assert seen.text("body") == "the address needs the token that the terminal shows"
    assert seen.run("document.querySelector('canvas') === null")
    seen = tab(page.url)
    until(lambda: seen.run(NUMBER) == 1, "the picture")


def test_another_page_in_the_browser(page, desk, tab):
    stranger = tab("data:text/html,stranger")
    address = f"ws://127.0.0.1:{port(page)}/live{query_of(page)}"
    opened = f"""new Promise(done => {{
      const socket = new WebSocket("{address}");
      socket.onopen = () => done("open");
      socket.onerror = () => done("no");
    }})"""
    assert stranger.run(opened) == "no"
    assert not page._browsers
    seen = tab(page.url)
    assert seen.run(opened) == "open"


def test_the_browser_says_when_the_session_is_gone_and_comes_back(desk, tab):
    first = WebPage(desk, port=0, token=TOKEN)
    with contextlib.closing(first):
        first.show(painted(1), facts(desk))
        seen = tab(first.url)
        until(lambda: seen.run(NUMBER) == 1, "the picture")
    until(lambda: seen.text("#notice").startswith(GONE), "the notice")
    with contextlib.closing(WebPage(desk, port=port(first), token=TOKEN)) as second:
        second.show(painted(2), facts(desk))
        until(lambda: near(np.array(seen.run(MIDDLE)[:3]), 2), "the picture of the new session")
        assert seen.text("#notice") == ""
    with contextlib.closing(WebPage(desk, port=port(first))):
        until(lambda: "not valid any more" in seen.text("#notice"), "the notice")


def test_the_browser_says_when_there_is_no_place_and_takes_one_when_there_is(page, desk, tab, monkeypatch):
    page.show(painted(1), facts(desk))
    monkeypatch.setattr(serve, "MOST_BROWSERS", 0)
    seen = tab(page.url)
    until(lambda: "Too many browsers" in seen.text("#notice"), "the notice")
    monkeypatch.undo()
    until(lambda: seen.run(NUMBER) == 1, "the picture")
    assert seen.text("#notice") == ""


def test_two_tabs_at_once(moving, page, tab):
    tabs = [tab(page.url) for _ in range(2)]
    for each in tabs:  # only the tab in front is painted
        each.send("Page.bringToFront")
        before = each.run(NUMBER)
        assert until(lambda each=each, before=before: each.run(NUMBER) > before, "pictures")


# ---------------------------------------------------------------------------------------------- as a program

ROOT = Path(__file__).parents[1]


@contextlib.contextmanager
def program(folder, *options):
    """`nst-video live` in a process of its own, with a clip for a camera and a painter that swaps red and blue."""
    command = [sys.executable, str(ROOT / "tests" / "live_program.py"), "live", str(ROOT / "samples" / "oil.jpg")]
    camera = ["--camera", str(ROOT / "samples" / "bunny.mp4"), "--size", "128", "--folder", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DISPLAY": ""}
    with subprocess.Popen([*command, *camera, *options], stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_session_from_beginning_to_end_in_the_browser(tmp_path, tab):
    with program(tmp_path, "--serve", "0", "--token", TOKEN) as process:
        address = next(filter(None, (re.search(r"http://\S+", line) for line in process.stderr)))[0]
        seen = tab(address)
        until(lambda: seen.run(NUMBER) > 5, "pictures")
        assert seen.run("document.querySelector('canvas').width") == 128
        seen.press("s")
        until(lambda: list(tmp_path.glob("*.png")), "the snapshot")
        seen.press("q")
        seen.click("#end")
        until(lambda: seen.text("#notice").startswith(GONE), "the notice")
        rest = process.stderr.read()
        assert process.wait(PATIENCE) == 0
    assert TOKEN in address
    assert TOKEN not in rest
    assert re.search(r"\d+ frames? in ", rest)


def test_a_port_that_is_taken_ends_the_program(page, tmp_path):
    with program(tmp_path, "--serve", str(port(page))) as process:
        told = process.stderr.read().splitlines()
        assert process.wait(PATIENCE) == 4
    assert told[-1] == (
        f"nst-video: error: port {port(page)} of 127.0.0.1 cannot be had: another program uses it; "
        "choose another port with --serve"
    )
