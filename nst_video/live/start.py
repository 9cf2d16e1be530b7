"""Puts a live session together from its options, and takes it apart in good order."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import Any

from nst_video.errors import UsageError
from nst_video.live.camera import is_device, open_camera
from nst_video.live.desk import Desk, Look, View
from nst_video.live.frames import Painter
from nst_video.live.options import LiveOptions
from nst_video.live.outputs import Output
from nst_video.live.recorder import Recorder, Snapshots, check_folder, check_recording
from nst_video.live.session import Session, Statistics, closing_all
from nst_video.live.shelf import Shelf
from nst_video.live.virtual import VirtualCamera
from nst_video.media.videoinfo import scaled_size
from nst_video.options import MachineOptions

log = logging.getLogger(__name__)

MakePainter = Callable[[LiveOptions, MachineOptions], Painter]


def run_live(
    styles: Sequence[str],
    options: LiveOptions,
    machine: MachineOptions,
    *,
    make_painter: MakePainter,
    outputs: Sequence[Output] = (),
    stop: Callable[[], bool] = lambda: False,
) -> Statistics:
    """Run a session until somebody quits it or `stop` says so; how it went.

    styles: files and folders of style pictures. outputs: further ones beside those that the options ask for; they are
    closed too. Raises InputError and ResourceError for what stands against the beginning: no display, no camera, no
    style picture; and ends what was begun, a recording too, whatever is raised later.
    """
    _check(styles, options, outputs)
    with ExitStack() as stack:
        display = stack.enter_context(_display() if options.windowed else ExitStack())
        shelf = stack.enter_context(closing(Shelf(styles)))
        shelf.start()
        camera = stack.enter_context(closing(open_camera(options.camera, options.size, options.fps)))
        height, width = camera.start().rgb.shape[:2]
        size = scaled_size((width, height), options.size, upscale=True)
        desk = Desk(
            _look(options),
            View(recording=options.record is not None, full_screen=options.full_screen),
            styles=lambda: len(shelf.pictures),
        )
        opened: list[Output] = [*outputs]
        stack.enter_context(closing_all(opened))
        if options.serve is not None:  # before the painter, which takes a while: a port that is taken is said at once
            opened.append(_web_page(desk, options))
        painter = stack.enter_context(closing(make_painter(options, machine)))
        recorder, window = Recorder(desk, options.folder, options.record), None
        opened += [Snapshots(options.folder), recorder]
        if options.virtual_camera:
            opened.append(_virtual_camera(size, options.fps))
        if options.windowed:
            window = _window(desk, size)
            display.close()
            opened.insert(0, window)  # first, so that nothing else adds to its latency
        keys = "h shows the keys, q quits" if options.windowed or options.serve is not None else "Ctrl-C ends it"
        log.info("%s: %d x %d, shown at %d x %d; %s", camera.name, width, height, *size, keys)
        session = Session(
            camera, painter, desk, lambda: shelf.pictures, opened,
            size=size, rate=options.fps, window=window, recorder=recorder,
        )  # fmt: skip
        return session.run(stop)


def _check(styles: Sequence[str], options: LiveOptions, outputs: Sequence[Output]) -> None:
    """UsageError where something that can be known before speaks against the session."""
    if not styles and not options.dream:
        raise UsageError("live needs a style picture or a folder of them, or --dream; see nst-video live --help")
    if not (options.windowed or outputs or options.serve is not None or options.record or options.virtual_camera):
        raise UsageError("--window off leaves nothing to show the picture: give --serve, --record or --virtual-camera")
    check_folder(options.folder)
    if options.record is not None:
        check_recording(options.record)


def _look(options: LiveOptions) -> Look:
    mirror = options.mirror == "on" or (options.mirror == "auto" and is_device(options.camera))
    return Look(
        strength=options.strength,
        brush=options.brush,
        keep_colors=options.keep_colors,
        mirror=mirror,
        dream=options.dream,
    )


def _display() -> ExitStack:
    from nst_video.live.window import display_checked

    with ExitStack() as stack:
        stack.enter_context(display_checked())
        return stack.pop_all()


def _window(desk: Desk, size: tuple[int, int]) -> Any:
    from nst_video.live.window import Window

    return Window(desk, size)


def _virtual_camera(size: tuple[int, int], rate: float) -> Output:
    device = VirtualCamera(size, rate)
    log.info("other programs see the picture as the camera %s", device.name)
    return device


def _web_page(desk: Desk, options: LiveOptions) -> Any:
    from nst_video.live.serve import WebPage

    assert options.serve is not None
    page = WebPage(desk, port=options.serve, host=options.host, token=options.token)
    log.info("open %s in a browser", page.url)
    return page
