"""PyTorch: type, shape and elements of tensors; not where they lie, nor whether gradients are kept.

Imported when the first value of PyTorch is met. Written against what every version of it has.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

from headrace.core.fingerprint.nodes import HashError, Node, fields, leaf, qualified

__all__ = ["encode"]

torch: Any = import_module("torch")

_PARTS: Final = {
    "torch.sparse_coo": ("indices", "values"),
    "torch.sparse_csr": ("crow_indices", "col_indices", "values"),
    "torch.sparse_bsr": ("crow_indices", "col_indices", "values"),
    "torch.sparse_csc": ("ccol_indices", "row_indices", "values"),
    "torch.sparse_bsc": ("ccol_indices", "row_indices", "values"),
}
"""What a sparse tensor is made of, by its layout."""


def encode(value: Any) -> bytes | Node | None:
    """The token or node of a tensor or a data type; None for everything else of PyTorch.

    Raises:
        HashError: a tensor without values.
    """
    if isinstance(value, torch.Tensor):
        return _of_tensor(value)
    if isinstance(value, torch.dtype):
        return leaf(b"e", str(value).encode())
    return None


def _of_tensor(tensor: Any) -> Node:
    if tensor.is_meta:
        raise HashError("", "is a tensor without values, on the device 'meta'")
    kind = b"" if type(tensor) is torch.Tensor else qualified(type(tensor))
    plain = tensor.detach()
    if type(plain) is not torch.Tensor:
        plain = plain.as_subclass(torch.Tensor)
    names, values = _contents(plain)
    header = b"\0".join((b"torch tensor", kind, str(tensor.dtype).encode(), str(tensor.layout).encode()))
    return fields(b"Q", header, names, values)


def _contents(tensor: Any) -> tuple[list[str], list[Any]]:
    if tensor.is_nested:
        return ["parts"], [list(tensor.unbind())]
    parts = _PARTS.get(str(tensor.layout))
    if parts is not None:
        held = tensor.coalesce() if parts[0] == "indices" else tensor
        return ["shape", *parts], [tuple(tensor.shape), *(getattr(held, name)() for name in parts)]
    if str(tensor.layout) != "torch.strided":
        raise HashError("", f"is a tensor of the layout {tensor.layout}, which has no fingerprint")
    return ["elements"], [_array(tensor)]


def _array(tensor: Any) -> Any:
    """The elements for NumPy, which has no numbers of two bytes or one that are as wide as these."""
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    here = tensor.cpu().resolve_conj().resolve_neg()
    if here.is_complex() and here.element_size() < 8:
        here = here.to(torch.complex64)
    elif here.is_floating_point() and here.dtype is not torch.float16 and here.element_size() < 4:
        here = here.float()  # each of these numbers is one of the wider type, too
    try:
        return here.numpy()
    except (RuntimeError, TypeError) as error:
        raise HashError("", f"is a tensor that NumPy cannot be given: {error}") from error
