"""What `nst-video info` tells: versions, devices, and where the weights of the encoders are."""

import importlib.metadata
import platform
from typing import Any

from nst_video import __version__

_PACKAGES = (
    "torch", "torchvision", "opencv-python", "opencv-python-headless", "av", "numpy", "pillow", "safetensors",
    "scenedetect", "tqdm", "matplotlib",
)  # fmt: skip


def gather() -> dict[str, Any]:
    """Everything as plain JSON types: versions (None = not installed), devices best first, encoder -> its weights."""
    import av
    import torch

    from nst_video.devices.machine import device_name, devices
    from nst_video.networks.encoders import encoder_files

    ffmpeg = ", ".join(f"{name} {'.'.join(map(str, version))}" for name, version in sorted(av.library_versions.items()))
    return {
        "nst-video": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "ffmpeg": ffmpeg,
        "devices": {device: device_name(device) for device in devices()},
        "threads": torch.get_num_threads(),
        "encoders": {
            file.name: {"weights": file.state, "path": str(file.path), "sha256": file.sha256, "licence": file.licence}
            for file in encoder_files()
        },
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def lines(facts: dict[str, Any]) -> list[str]:
    """The facts of `gather` for people."""
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items() if version)
    missing = ", ".join(name for name, version in facts["packages"].items() if version is None)
    return [
        f"nst-video {facts['nst-video']}, Python {facts['python']}, {facts['platform']}",
        f"packages: {packages}",
        *([f"not installed: {missing}"] if missing else []),
        f"FFmpeg: {facts['ffmpeg']}",
        f"threads: {facts['threads']}",
        "devices: " + ", ".join(f"{device} ({name})" for device, name in facts["devices"].items()),
        "encoders:",
        *(f"  {name}: {file['weights']}, {file['path']}" for name, file in facts["encoders"].items()),
    ]
