"""How old a picture is when a browser shows it: the web page's WebSocket against a stream of JPEGs (MJPEG).

    python scripts/bench_serve.py [CLIP] [--seconds 20] [--rate 24] [--link 300]

Both send the newest frame only, one when the one before has gone into the socket (MJPEG) or was shown (WebSocket), to
the same Chromium, straight and over a link of so many kB/s. Each frame carries its number in its pixels; the browser
notes when it first sees it on its screen. Needs Chromium and the extras serve and test.
"""

import argparse
import contextlib
import itertools
import json
import socket
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np

from nst_video.live.desk import Desk
from nst_video.live.frames import Shown
from nst_video.live.outputs import Facts
from nst_video.live.serve import WebPage, _jpeg

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from chromium import browser, until  # noqa: E402

SIZE = (512, 288)
BITS, BLOCK = 12, 16  # the number is written as so many black or white squares along the upper border
# Looks at `what` before every repaint of the screen and notes [number, time] of each frame it had not seen.
WATCH = f"""window.seen = [];
const code = document.createElement("canvas").getContext("2d", {{willReadFrequently: true}});
(function look() {{
  const what = document.querySelector("img, canvas");
  if (what && (what.width > 100 || what.naturalWidth > 100)) {{
    code.drawImage(what, 0, 0);
    let number = 0;
    for (let bit = 0; bit < {BITS}; bit++) {{
      number += (code.getImageData(bit * {BLOCK} + {BLOCK // 2}, {BLOCK // 2}, 1, 1).data[0] > 127) << bit;
    }}
    if (!seen.length || seen.at(-1)[0] !== number) seen.push([number, Date.now()]);
  }}
  requestAnimationFrame(look);
}})()"""


def frames(clip):
    """Frames of the clip for ever, forwards and backwards, uint8 (H, W, 3) RGB with their number in them."""
    film = cv2.VideoCapture(str(clip))
    pictures = [cv2.resize(film.read()[1], SIZE)[:, :, ::-1] for _ in range(48)]
    for number, picture in enumerate(itertools.cycle(pictures + pictures[::-1]), 1):
        marked = picture.copy()
        for bit in range(BITS):
            marked[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (number >> bit & 1)
        yield number, marked


class Mjpeg:
    """The stream that the page is compared with."""

    def __init__(self):
        stream = self
        self.jpeg, self.news = b"", threading.Condition()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                page = self.path.partition("?")[0] == "/"
                self.send_header("Content-Type", "text/html" if page else "multipart/x-mixed-replace; boundary=next")
                self.end_headers()
                if page:
                    self.wfile.write(
                        b"<body onload=\"document.body.append(Object.assign(new Image(), {src: '/stream'}))\">"
                    )
                    return
                with contextlib.suppress(ConnectionError):
                    while True:
                        with stream.news:
                            stream.news.wait()
                            jpeg = stream.jpeg
                        self.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg + b"\r\n")

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def show(self, shown, facts):
        with self.news:
            self.jpeg = _jpeg(shown.rgb)
            self.news.notify_all()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def link(port, rate):
    """Port of a link to `port` that carries `rate` bytes a second downwards."""
    listening = socket.create_server(("127.0.0.1", 0))

    def carry(source, target, rate):
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                target.sendall(data)
                time.sleep(len(data) / rate if rate else 0)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)

    def accept():
        while True:
            near = listening.accept()[0]
            far = socket.socket()
            for end in (near, far):  # what waits in the link itself shall be little
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            far.connect(("127.0.0.1", port))
            for ends in ((near, far, None), (far, near, rate)):
                threading.Thread(target=carry, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listening.getsockname()[1]


def measure(make, tab, clip, seconds, rate, kilobytes):
    """Ages in milliseconds of what the browser showed, and how long `show` took."""
    desk = Desk()
    output = make(desk)
    address = urlsplit(output.url)
    port = link(address.port, 1000 * kilobytes) if kilobytes else address.port
    seen = tab(f"http://127.0.0.1:{port}/?{address.query}")
    seen.size(1000, 700)
    seen.run(WATCH)
    captured, took = {}, []
    begun = time.monotonic()
    for number, rgb in frames(clip):
        time.sleep(max(begun + number / rate - time.monotonic(), 0))
        if number > seconds * rate:
            break
        captured[number] = 1000 * time.time()
        now = time.monotonic()
        output.show(Shown(rgb, rgb, number, now, now, SIZE, 1, "none", "cpu"), Facts(now, desk.setting, rate, rate))
        took.append(1000 * (time.monotonic() - now))
    noted = seen.run("seen")
    seen.send("Page.navigate", url="about:blank")
    output.close()
    # The first two seconds are for starting.
    ages = [when - captured[number] for number, when in noted if number > 2 * rate and number in captured]
    return ages, took, len(ages) / (seconds - 2)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clip", nargs="?", default=ROOT / "samples" / "bunny.mp4", type=Path)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rate", type=float, default=24)
    parser.add_argument("--link", type=int, default=300, help="kB/s of the slow link")
    options = parser.parse_args()
    kinds = {"MJPEG": lambda desk: Mjpeg(), "WebSocket": lambda desk: WebPage(desk, port=0)}
    with tempfile.TemporaryDirectory() as folder, browser(Path(folder)) as tabs, tabs() as tab:
        for kilobytes, (name, make) in itertools.product((0, options.link), kinds.items()):
            ages, took, rate = measure(make, tab, options.clip, options.seconds, options.rate, kilobytes)
            until(lambda ages=ages: ages, "pictures", 1)
            print(
                json.dumps(
                    {
                        "kind": name,
                        "link": f"{kilobytes} kB/s" if kilobytes else "free",
                        "shown_per_second": round(rate, 1),
                        "age_ms": {
                            "median": round(float(np.median(ages))),
                            "p99": round(float(np.quantile(ages, 0.99))),
                        },
                        "show_ms": {"median": round(float(np.median(took)), 2), "most": round(max(took), 2)},
                    }
                )
            )


if __name__ == "__main__":
    main()
