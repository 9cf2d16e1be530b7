"""Files of weights: reading them without running code from them, checking what they hold, downloading them once."""

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nst_video.errors import InputError, ResourceError
from nst_video.files import sha256_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """A file of weights inside this package, with its whole SHA-256."""

    path: Path
    sha256: str

    @property
    def state(self) -> str:
        """Where the weights are, in a word or two."""
        return "in the package"

    def fetch(self, *, offline: bool = False) -> Path:
        """The file, after its hash was checked; ResourceError when it is missing or damaged. Never uses the network."""
        try:
            digest = sha256_of(self.path)
        except OSError as error:
            raise ResourceError(
                f"cannot read the weights {self.path}: {error.strerror}; install the package again"
            ) from error
        if digest != self.sha256:
            raise ResourceError(f"the weights {self.path} are damaged: SHA-256 {digest}; install the package again")
        return self.path


@dataclass(frozen=True)
class Download:
    """A file of pretrained weights on the net: the first digits of its SHA-256 and its size in megabytes."""

    url: str
    sha256: str
    megabytes: int

    @property
    def path(self) -> Path:
        """Where torch keeps it once it is there, shared with torchvision; TORCH_HOME moves it."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rpartition("/")[2]

    @property
    def state(self) -> str:
        """Where the weights are, in a word or two."""
        return "downloaded" if self.path.exists() else "not downloaded"

    def fetch(self, *, offline: bool = False) -> Path:
        """The local file, its hash checked; downloaded with a progress bar on stderr when it is not there yet.

        ResourceError: not there and `offline`, no network, no room, or another content than expected.
        """
        path = self.path
        if not path.exists():
            if offline:
                raise ResourceError(
                    f"no weights at {path} and --offline forbids the download of {self.megabytes} MB from {self.url}; "
                    "allow it or give the file with --weights"
                )
            _download(self, path)
        elif not sha256_of(path).startswith(self.sha256):
            raise ResourceError(f"the weights {path} are damaged: SHA-256 not {self.sha256}...; delete that file")
        return path


def _download(download: Download, path: Path) -> None:
    """Fill `path`, completely or not at all."""
    logger.info("downloading %s (%d MB) to %s", download.url, download.megabytes, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(download.url, str(path), download.sha256, progress=True)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ResourceError(
            f"cannot download {download.url} to {path}: {reason}; give the file with --weights"
        ) from error
    except RuntimeError as error:
        raise ResourceError(
            f"the download of {download.url} arrived damaged, try again: {_first_line(error)}"
        ) from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """Name -> tensor from a safetensors file or a state dict saved by torch, told apart by content; on the CPU.

    InputError, one line, for anything else. A pickle is read with weights_only: nothing in it can run.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise InputError(f"cannot read the weights {path}: {error.strerror}") from error
    # A safetensors file opens with the length of its header, eight bytes, and the header's brace.
    return (_read_safetensors if start[8:] == b"{" else _read_pickle)(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"the weights {path} are a damaged safetensors file: {_first_line(error)}") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"the weights {path} are neither a safetensors file nor a state dict of tensors alone; objects of other "
            "kinds are not loaded because loading them could run code"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, BadZipFile) as error:
        raise InputError(
            f"the weights {path} are not a file of weights, or a damaged one: {_first_line(error)}"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"the weights {path} hold a {type(state).__name__}, not a state dict (name -> tensor)")
    return dict(state)


def take(tensors: Mapping[str, Tensor], wanted: Mapping[str, torch.Size], owner: str) -> dict[str, Tensor]:
    """The wanted tensors, and only those, after comparing their shapes; InputError names the first that does not fit.

    owner: says whose tensors they are, for the message, such as "the weights x.pth".
    """
    for name, shape in wanted.items():
        if name not in tensors:
            has = ", ".join(list(tensors)[:3]) or "nothing"
            raise InputError(f"{owner} lack {name} {tuple(shape)}; they start with {has}")
        if tensors[name].shape != shape:
            raise InputError(
                f"{owner} have {name} of shape {tuple(tensors[name].shape)} where {tuple(shape)} is needed"
            )
    return {name: tensors[name] for name in wanted}


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
