"""What counts in tensors: numbers, their type, the shape; not the layout in memory, device or gradients.

PyTorch is large: where it is not installed, these tests are skipped.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from headrace.core.fingerprint import HashError, fingerprint

torch: Any = pytest.importorskip("torch")
NAMES = [
    *("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"),
    *("complex64", "complex128", "float8_e4m3fn", "float8_e5m2"),
]
DTYPES = [name for name in NAMES if hasattr(torch, name)]
"""The narrowest are new."""


def tensor(last: float, dtype: str = "float32") -> Any:
    return torch.tensor([[0.0, 1.0], [1.0, last]]).to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_counts_by_value(dtype: str) -> None:
    one, other = tensor(1, dtype), tensor(0, dtype)
    assert fingerprint(one) == fingerprint(one.clone()) != fingerprint(other)
    assert fingerprint(one) != fingerprint(one.reshape(4))


def test_types_are_told_apart() -> None:
    assert len({fingerprint(tensor(1, dtype)) for dtype in DTYPES}) == len(DTYPES)
    assert fingerprint(tensor(1)) not in {fingerprint(tensor(1).numpy()), fingerprint(tensor(1).tolist())}
    assert fingerprint(torch.float32) == fingerprint(torch.float32) != fingerprint(torch.float64)


def test_the_layout_in_memory_does_not_count() -> None:
    wide = torch.arange(12).reshape(3, 4)
    assert fingerprint(wide.T) == fingerprint(wide.T.contiguous())
    assert fingerprint(wide[:, ::2]) == fingerprint(wide[:, ::2].clone())
    numbers = torch.tensor([1 + 2j])
    assert fingerprint(numbers.conj()) == fingerprint(torch.tensor([1 - 2j]))
    assert fingerprint(torch.tensor(3.0)) != fingerprint(torch.tensor([3.0]))


def test_gradients_do_not_count_and_kinds_do() -> None:
    one = tensor(2)
    assert fingerprint(tensor(2).requires_grad_()) == fingerprint(one)
    grown = one.clone().requires_grad_() * 1
    assert fingerprint(grown) == fingerprint(one)
    parameter = torch.nn.Parameter(one)
    assert fingerprint(parameter) == fingerprint(torch.nn.Parameter(one.clone())) != fingerprint(one)


def test_what_is_not_a_number_is_so_in_one_way() -> None:
    odd = torch.tensor(np.array([0x7FC00001], dtype=np.uint32).view(np.float32))
    assert fingerprint(odd) == fingerprint(torch.tensor([float("nan")]))
    assert fingerprint(torch.tensor([0.0])) != fingerprint(torch.tensor([-0.0]))


@pytest.mark.parametrize("layout", ["coo", "csr", "csc", "bsr", "bsc"])
def test_sparse_tensors(layout: str) -> None:
    size = {"blocksize": (1, 1)} if layout.startswith("bs") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some layouts are new
        one, same, other = (
            getattr(tensor(last), "to_sparse" if layout == "coo" else f"to_sparse_{layout}")(**size)
            for last in (2, 2, 3)
        )
        assert fingerprint(one) == fingerprint(same) != fingerprint(other)
        assert fingerprint(one) != fingerprint(tensor(2))


def test_entries_of_sparse_tensors_have_no_order() -> None:
    one, other = (
        torch.sparse_coo_tensor(places, values, (2, 2))
        for places, values in (([[0, 1], [1, 0]], [3.0, 4.0]), ([[1, 0, 1], [0, 1, 0]], [1.0, 3.0, 3.0]))
    )
    assert fingerprint(one) == fingerprint(other)


def test_models_count_by_their_weights() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        torch.manual_seed(1)
        same = torch.nn.Linear(2, 2)
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)


def test_a_tensor_without_values() -> None:
    with pytest.raises(HashError, match=r"^inputs\[0\]: is a tensor without values"):
        fingerprint([torch.empty(2, device="meta")], name="inputs")
