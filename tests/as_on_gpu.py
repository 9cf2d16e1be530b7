"""The path of a GPU on a machine without one: tensors of the CPU say that they are on a GPU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def convolution_and_relu(
    x: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int], padding: tuple[int, int], *_: Any
) -> Tensor:
    """As torch.cudnn_convolution_relu."""
    return F.conv2d(x, weight, bias, stride, padding).relu_()


def product(one: Tensor, other: Tensor, *, out_dtype: torch.dtype) -> Tensor:
    """As torch.bmm with a type of its own for the result."""
    return torch.bmm(one.to(out_dtype), other.to(out_dtype))


class AsOnGpu(TorchFunctionMode):
    """Meanwhile all tensors say that they are on a GPU, and what only GPUs have is there."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func == Tensor.is_cuda.__get__:
            return True
        if func is torch.cudnn_convolution_relu:
            return self.alone(convolution_and_relu, *args)
        if func is torch.bmm and "out_dtype" in kwargs:
            return self.alone(product, *args, **kwargs)
        return func(*args, **kwargs)

    def alone(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        """What stands in for a single function of a GPU."""
        return function(*args, **kwargs)
