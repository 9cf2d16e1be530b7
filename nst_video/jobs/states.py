"""What a stylizer carries from frame to frame, on disk and back, bit for bit: dataclasses of tensors and numbers.

The tensors are those of a safetensors file; everything else is JSON in its header. Nothing in it can run, and nothing
is taken that the dataclass does not have.
"""

import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nst_video.errors import InputError

Value = TypeVar("Value")

_JSON = "nst_video"  # the key of the header that holds what is not a tensor
_TENSOR = "tensor"  # stands in the JSON for the tensor of this name
_STRIDES = "strides"  # of a tensor that is not laid out in the usual order


@dataclass(frozen=True)
class Packed:
    """A value taken apart: its tensors by the path to them, on the CPU, and the rest as plain JSON types."""

    tensors: dict[str, Tensor]
    rest: Any

    def to_bytes(self) -> bytes:
        """The content of a safetensors file."""
        return save(self.tensors, metadata={_JSON: json.dumps(self.rest, allow_nan=False)})


def pack(value: object) -> Packed:
    """Take apart a tensor, a number, text, None, or a dict, tuple or dataclass of such.

    The tensors are copies: what the value does afterwards does not show in them. TypeError for anything else.
    """
    tensors: dict[str, Tensor] = {}
    return Packed(tensors, _pack(value, "", tensors))


def _pack(value: object, path: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        return _pack_tensor(value, path, tensors)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no NaN
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, tuple | list):
        return [_pack(item, f"{path}.{index}", tensors) for index, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {name: _pack(item, f"{path}.{name}", tensors) for name, item in value.items()}
    if is_dataclass(value):
        return {item.name: _pack(getattr(value, item.name), f"{path}.{item.name}", tensors) for item in fields(value)}
    raise TypeError(f"a {type(value).__name__} cannot be kept in a state; only tensors, numbers, text, and dataclasses")


def _pack_tensor(tensor: Tensor, path: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    name = path.lstrip(".") or _TENSOR
    tensors[name] = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())
    dense = torch.empty_like(tensor, device="meta")  # keeps the order of the dimensions in memory, not any gaps
    return {_TENSOR: name} | ({} if dense.is_contiguous() else {_STRIDES: list(dense.stride())})


def unpack(packed: Packed, kind: type[Value], device: torch.device | str = "cpu") -> Value:
    """The value that was packed, as a `kind`; InputError for anything that is not of it, extra fields included.

    The tensors lie in memory as they did, because the order of the sums of a convolution may depend on it.
    """
    used: set[str] = set()
    try:
        value = _unpack(packed.rest, kind, "the state", _Tensors(packed.tensors, device, used))
    except (ValueError, TypeError, RuntimeError, KeyError) as error:  # numbers, lengths and strides that cannot be
        raise InputError(f"the state is damaged: {error}") from error
    extra = sorted(set(packed.tensors) - used)
    if extra:
        raise InputError(f"the state has tensors that nothing asks for: {', '.join(extra)}")
    return typing.cast(Value, value)


@dataclass(frozen=True)
class _Tensors:
    by_name: Mapping[str, Tensor]
    device: torch.device | str
    used: set[str]

    def take(self, entry: Any, where: str) -> Tensor:
        known = isinstance(entry, dict) and set(entry) <= {_TENSOR, _STRIDES} and entry.get(_TENSOR) in self.by_name
        if not known:
            raise InputError(f"{where} is no tensor of the file")
        stored = self.by_name[entry[_TENSOR]]
        self.used.add(entry[_TENSOR])
        # A copy of its own: tensors of a file may lie anywhere in memory, and some sums depend on the alignment.
        strides = entry.get(_STRIDES)
        like = (
            torch.empty(stored.shape, dtype=stored.dtype, device=self.device)
            if strides is None
            else torch.empty_strided(stored.shape, strides, dtype=stored.dtype, device=self.device)
        )
        return like.copy_(stored)


def _unpack(data: Any, kind: Any, where: str, tensors: _Tensors) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return _unpack_optional(data, kind, where, tensors)
    if kind is Tensor:
        return tensors.take(data, where)
    if is_dataclass(kind):
        return _unpack_fields(data, kind, where, tensors)
    if origin is tuple and isinstance(data, list):
        return tuple(_unpack(item, of, where, tensors) for item, of in zip(data, _kinds(kind, data), strict=True))
    if origin is dict and isinstance(data, dict):
        of = typing.get_args(kind)[1]
        return {name: _unpack(item, of, f"{where}.{name}", tensors) for name, item in data.items()}
    return _unpack_plain(data, kind, where)


def _unpack_plain(data: Any, kind: Any, where: str) -> Any:
    if kind is float and isinstance(data, float | int | str) and not isinstance(data, bool):
        return float(data)
    if kind in (int, str, bool) and type(data) is kind:
        return data
    raise InputError(f"{where} is {data!r} where {getattr(kind, '__name__', kind)} is needed")


def _unpack_optional(data: Any, kind: Any, where: str, tensors: _Tensors) -> Any:
    others = [of for of in typing.get_args(kind) if of is not type(None)]
    if data is None and len(others) < len(typing.get_args(kind)):
        return None
    return _unpack(data, others[0], where, tensors)


def _unpack_fields(data: Any, kind: Any, where: str, tensors: _Tensors) -> Any:
    names = [item.name for item in fields(kind)]
    if not isinstance(data, dict) or sorted(data) != sorted(names):
        has = ", ".join(sorted(data)) if isinstance(data, dict) else repr(data)
        raise InputError(f"{where} holds {has} where a {kind.__name__} has {', '.join(sorted(names))}")
    kinds = typing.get_type_hints(kind)
    return kind(**{name: _unpack(data[name], kinds[name], f"{where}.{name}", tensors) for name in names})


def _kinds(kind: Any, data: list[Any]) -> tuple[Any, ...]:
    """The kinds of a tuple's items: `tuple[float, ...]` as often as there are items."""
    args = typing.get_args(kind)
    return (args[0],) * len(data) if len(args) == 2 and args[1] is Ellipsis else args


def read_packed(path: Path) -> Packed:
    """What `Packed.to_bytes` wrote; InputError for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Packed(tensors, json.loads(metadata[_JSON]))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is not a state that this program saved, or is damaged: {error}") from error
