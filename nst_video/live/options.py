"""The options of a live session."""

from dataclasses import dataclass

from nst_video.errors import UsageError
from nst_video.fields import check, option
from nst_video.kinds import Choice, File, Flag, Number, Text
from nst_video.networks.layers import ENCODER_LAYERS

_THIS_MACHINE = "127.0.0.1"


@dataclass(frozen=True)
class LiveOptions:
    """A live session: where its pictures come from, where they go, and the look that it begins with."""

    camera: str = option(
        "0",
        Text("a number, a device or a file"),
        "number or path of the camera, or a video that stands for one",
        metavar="CAMERA",
    )
    fps: float = option(24, Number(1, 240), "pictures in a second that are aimed at, and not exceeded", metavar="N")
    size: int = option(512, Number(64, 4096, whole=True), "long side of the picture shown", metavar="PIXELS")
    window: str = option(
        "auto", Choice(("auto", "on", "off")), "show the picture in a window; auto: unless --serve shows it"
    )
    full_screen: bool = option(False, Flag(), "begin with the window as large as the screen")
    mirror: str = option(
        "auto",
        Choice(("auto", "on", "off")),
        "begin with the picture as in a mirror; auto: unless the camera is a file",
    )
    record: str | None = option(None, File("a file"), "record to this video from the start", metavar="FILE")
    folder: str = option(".", Text("a folder"), "where recordings and snapshots made by key go", metavar="FOLDER")
    virtual_camera: bool = option(False, Flag(), "be a camera for other programs (needs the extra `virtualcam`)")
    serve: int | None = option(
        None,
        Number(0, 65535, whole=True),
        "show the picture as a web page on this port, 0 = a free one",
        metavar="PORT",
    )
    host: str = option(_THIS_MACHINE, Text("an address"), "address that the web page listens at", metavar="ADDRESS")
    token: str | None = option(
        None,
        Text("some characters"),
        "what the address of the web page must contain",
        metavar="TEXT",
        unset="a new one each time",
    )
    dream: bool = option(False, Flag(), "begin dreaming instead of painting")
    strength: float = option(1.0, Number(0.1, 4), "begin with this strength of the style", metavar="X")
    brush: float = option(1.0, Number(0.25, 4), "begin with this size of the brush strokes", metavar="X")
    keep_colors: bool = option(False, Flag(), "begin with the colours of the camera")
    encoder: str = option("slim", Choice(tuple(ENCODER_LAYERS)), "network that sees style and content")

    def __post_init__(self) -> None:
        check(self)
        if self.serve is None:
            for name, given in (("--host", self.host != _THIS_MACHINE), ("--token", self.token is not None)):
                if given:
                    raise UsageError(f"{name} means nothing without the web page; give --serve PORT as well")
        if self.full_screen and not self.windowed:
            raise UsageError("--full-screen means nothing without a window; give --window on as well, or leave it out")

    @property
    def windowed(self) -> bool:
        """Whether the picture is shown in a window."""
        return self.window == "on" or (self.window == "auto" and self.serve is None)
