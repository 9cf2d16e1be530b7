"""What a render's pixels depend on, in a form that can be kept and compared: a job is only gone on with when it is the
same.
"""

import hashlib
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nst_video import __version__
from nst_video.errors import InputError
from nst_video.fields import flag_name
from nst_video.files import sha256_of
from nst_video.media.sequences import find_sequence
from nst_video.options import OutputOptions
from nst_video.plain import plain
from nst_video.settings import Settings

if TYPE_CHECKING:
    from nst_video.plan import Style

# These say what is refused and what is kept, and may be others every time.
LIMITS = ("overwrite", "restart", "keep_job", "max_pixels", "max_duration")
# These change no pixel.
NEUTRAL = frozenset({"quality", "offline", "memory_limit", *LIMITS})
# These are files: what is in them counts, not where they are.
FILES = frozenset({"weights", "guide", "music"})
# These only say how the painted frames are written.
ENCODING = ("codec", "crf", "preset", "lossless")
_TIMES = frozenset({"--start", "--end", "--still", "--duration", "--music-start"})  # in seconds
# Distributions whose code paints, decodes or encodes; of several with one purpose that which is installed.
PACKAGES = ("torch", "numpy", "av", "pillow", "opencv-python", "opencv-python-headless", "opencv-contrib-python")


def fingerprint(input: str, styles: Sequence["Style"], settings: Settings) -> dict[str, Any]:
    """Name -> value, as plain JSON types, of everything that decides a pixel of the painted frames; InputError where a
    file cannot be read.
    """
    found: dict[str, Any] = {"input": digest(input)}
    for number, style in enumerate(styles, 1):
        found[f"style {number}"] = digest(style.path)
        found[f"weight of style {number}"] = style.weight
    for name, value in settings.values().items():
        if name in FILES:
            found |= {} if value is None else {flag_name(name): digest(value)}
        elif name == "stem":
            found |= {f"--stem {stem}": digest(file) for stem, file in settings.music.stems.items()}
        elif name not in NEUTRAL and name not in ENCODING:
            found[flag_name(name)] = plain(value)
    return found | packages()


def encoding(options: OutputOptions) -> dict[str, Any]:
    """Name -> value of what only decides how the frames are written."""
    return {flag_name(name): getattr(options, name) for name in ENCODING}


def packages() -> dict[str, str]:
    """The versions of this program and of what it computes with."""
    found = {"nst-video": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor(device: str) -> str:
    """What computes where painting is done on `device`, which is there: the CPU, and the GPU if it is one. Others may
    round differently.
    """
    if device == "cpu":
        return _cpu()
    from nst_video.devices.machine import device_name  # imports torch

    return f"{_cpu()} with {device_name(device)}"


def _cpu() -> str:
    """The CPU's model where the system tells it, else its family."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, each in words such as "--size 64 then, 96 now"."""
    names = [*then, *(name for name in now if name not in then)]
    return [
        f"{name} {_shown(name, then.get(name))} then, {_shown(name, now.get(name))} now"
        for name in names
        if then.get(name) != now.get(name)
    ]


def digest(path: str) -> str:
    """Size and SHA-256 of a file, or of all pictures of a sequence. All of it is read, because a job is only gone on
    with when no byte of it is another.
    """
    try:
        sequence = find_sequence(path) if os.path.isdir(path) or not os.path.exists(path) else None
        if sequence is not None:
            return _digest_of_many(sequence.files)
        return f"{os.path.getsize(path)} bytes, SHA-256 {sha256_of(Path(path))}"
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


def _digest_of_many(files: Iterable[str]) -> str:
    checksum, count, total = hashlib.sha256(), 0, 0
    for file in files:
        checksum.update(f"{os.path.basename(file)} {sha256_of(Path(file))}\n".encode())
        count, total = count + 1, total + os.path.getsize(file)
    return f"{count} pictures of {total} bytes, SHA-256 {checksum.hexdigest()}"


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "not given"
    if name in _TIMES:
        return f"{float(Fraction(value)):g}"
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"{text[:60]}..." if len(text) > 64 else text


def with_encoding(options: OutputOptions, now: OutputOptions) -> OutputOptions:
    """The options a job was begun with, and from those given now whatever changes no painted pixel."""
    fresh = {name: getattr(now, name) for name in (*ENCODING, *LIMITS)}
    return replace(options, **fresh)
