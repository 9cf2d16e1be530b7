"""The child of guarded.py: one request on stdin, its answers on stdout, within limits on memory."""

import base64
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import IO, Any

import numpy as np

from nst_video.errors import NstVideoError
from nst_video.media.limits import limit_this_process, memory_limit
from nst_video.media.pictures import DEFAULT_MAX_PIXELS
from nst_video.media.soundtrack import survey_song
from nst_video.media.survey import (
    Request,
    check_guide,
    check_styles,
    probe_input,
    rehearse,
    small_picture,
    survey,
    with_duration,
)

SIGN_OF_LIFE_EVERY = 0.5  # seconds


def _sent(rgb: np.ndarray) -> tuple[tuple[int, ...], str]:
    """A picture as JSON types."""
    return rgb.shape, base64.b64encode(rgb.tobytes()).decode()


def child() -> None:
    """The life of the child: one request on stdin, answers on stdout, and the end when stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the parent ends this one
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write between the answers
    serve(sys.stdin.buffer, answers)
    answers.flush()
    os._exit(0)  # at once: a decoder that a hostile file has upset might not survive its own cleaning up


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answers one request, within its limits."""
    data = json.loads(requests.readline())
    path, max_pixels, work = next((make for kind, make in REQUESTS.items() if kind in data), _looking)(data)
    threading.Thread(target=_end_with_parent, args=(requests,), name="nst-video parent", daemon=True).start()
    teller = Teller(answers)
    limit_this_process(memory_limit(max_pixels))
    logging.getLogger("nst_video").addHandler(teller)
    logging.getLogger("nst_video").setLevel(logging.INFO)
    teller.tell(now=(path, 0))
    try:
        work(teller)
    except NstVideoError as error:
        teller.tell(error=(type(error).__name__, str(error)))
    except MemoryError:
        teller.tell(memory=True)
    except Exception:  # a fault of this program's: told whole, where an empty answer would say nothing
        teller.tell(fault=traceback.format_exc())


def _looking(data: dict[str, Any]) -> tuple[str, int, Callable[["Teller"], None]]:
    """A request to look: the file it is about, the pixels that its limits are for, and the work."""
    request = Request.from_json(data)
    return request.input, request.options.max_pixels, lambda teller: _look(request, teller)


def _reading(data: dict[str, Any]) -> tuple[str, int, Callable[["Teller"], None]]:
    """The same of a request for pictures."""

    def work(teller: "Teller") -> None:
        for path in data["pictures"]:
            rgb = small_picture(path, data["side"], lambda path, pixels: teller.tell(now=(path, pixels)))
            teller.tell(picture=_sent(rgb))

    return data["pictures"][0], DEFAULT_MAX_PIXELS, work


def _listening(data: dict[str, Any]) -> tuple[str, int, Callable[["Teller"], None]]:
    """The same of a request to listen."""
    from nst_video.music.sound import SoundRequest
    from nst_video.music.track import analyse

    request = SoundRequest.from_json(data["sound"])

    def work(teller: "Teller") -> None:
        teller.tell(track=analyse(request, teller.sign_of_life).to_json())

    return request.path, request.max_pixels, work


def _look(request: Request, teller: "Teller") -> None:
    import cv2

    cv2.setNumThreads(1)  # for pictures this small its threads are memory without use
    song = None
    if request.music is not None:
        teller.tell(now=(request.music, 0))
        song = survey_song(
            request.music,
            request.music_end,
            request.options.max_duration,
            begin=request.music_start,
            on_step=teller.sign_of_life,
        )
        teller.tell(now=(request.input, 0))
        request = replace(request, options=with_duration(request.options, song, request.input))
    info = probe_input(request.input, request.options)
    teller.tell(info=info.to_json())
    if request.guide is not None:
        teller.tell(now=(request.guide, 0))
        check_guide(request, teller.sign_of_life)
    check_styles(request, lambda path, pixels: teller.tell(now=(path, pixels)))
    teller.tell(pictures=True)
    teller.tell(now=(request.input, info.width * info.height))
    # Exact only now: what holds frames of this size, and no more, however long the video is.
    limit_this_process(memory_limit(info.width * info.height))
    found = survey(info, request, teller.sign_of_life)
    if song is not None:
        found = replace(found, song=song)
    rehearse(info, request, found, teller.sign_of_life)
    teller.tell(survey=found.to_json())


REQUESTS = {"sound": _listening, "pictures": _reading}  # by a word in them; any other is one to look


def _end_with_parent(requests: IO[bytes]) -> None:
    """Nothing more comes after the request but the end, with the parent's own: then nobody waits for an answer."""
    requests.read()
    os._exit(1)


class Teller(logging.Handler):
    """Writes messages as JSON lines, also from the decoding thread; log records are messages too."""

    def __init__(self, answers: IO[bytes]) -> None:
        super().__init__()
        self.answers = answers
        self.told = 0.0

    def tell(self, **message: Any) -> None:
        """Write one message."""
        with self.lock or threading.RLock():
            self.answers.write(json.dumps(message).encode() + b"\n")
            self.answers.flush()
            self.told = time.monotonic()

    def sign_of_life(self) -> None:
        """Tell that something was read, unless something was told just before."""
        if time.monotonic() - self.told > SIGN_OF_LIFE_EVERY:
            self.tell(alive=True)

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the record."""
        self.tell(log=(record.name, record.levelno, record.getMessage()))
