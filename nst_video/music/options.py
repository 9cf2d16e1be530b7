"""The options of the music of a render."""

from dataclasses import dataclass
from fractions import Fraction

from nst_video.errors import UsageError
from nst_video.fields import check, exact, option
from nst_video.kinds import Choice, File, Repeated, Text, Time


@dataclass(frozen=True)
class MusicOptions:
    """What is heard and what it drives. Files are only named here; `music.heard.hear` opens them."""

    music: str | None = option(
        None,
        File("a file with sound"),
        "music that drives the picture and becomes its sound",
        metavar="FILE",
        unset="the sound of the input",
    )
    music_start: Fraction = option(Fraction(0), Time(), "begin at this time of the music", metavar="TIME")
    music_end: str = option(
        "stop",
        Choice(("loop", "stop", "fade")),
        "music shorter than the video: again from its beginning, silence after it, or fade away into silence",
    )
    stem: tuple[str, ...] = option(
        (),
        Repeated(Text("NAME=FILE")),
        "a part of the music by itself, heard as NAME.onset and so on; it drives, but is not in the sound",
        metavar="NAME=FILE",
    )
    drive: tuple[str, ...] = option(
        (),
        Repeated(Text("TARGET=FEATURE*GAIN+OFFSET,attack=S,release=S")),
        "let what is heard add to an option that takes a schedule, such as strength=onset*0.5,release=0.5",
        metavar="TARGET=FEATURE",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "music_start", exact("music_start", Time(), self.music_start))
        check(self)
        if not self.music and not self.stem and (self.music_start or self.music_end != "stop"):
            given = "--music-start" if self.music_start else "--music-end"
            raise UsageError(f"{given} means nothing without music; give --music FILE as well, or leave it out")
        for text in self.stem:
            name, equals, file = text.partition("=")
            if not (name.isidentifier() and equals and file):
                raise UsageError(f"--stem {text} is not allowed; allowed NAME=FILE such as drums=drums.wav")
        names = [text.partition("=")[0] for text in self.stem]
        if len(set(names)) < len(names):
            raise UsageError(f"--stem {' '.join(names)} names one stem twice; allowed each name once")

    @property
    def stems(self) -> dict[str, str]:
        """Name -> file."""
        return {name: file for name, _, file in (text.partition("=") for text in self.stem)}
