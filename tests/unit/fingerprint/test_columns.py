"""Polars and Arrow in fingerprints, where they are installed: `uv pip install --group tables`."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import pytest

from headrace.core.fingerprint import HashError, fingerprint

pl: Any = pytest.importorskip("polars")
pa: Any = pytest.importorskip("pyarrow")

COLUMNS: dict[str, list[Any]] = {
    "int": [1, None, 3],
    "float": [0.5, None, float("nan")],
    "bool": [True, None, False],
    "text": ["a", None, "c"],
    "bytes": [b"a", None, b"c"],
    "moment": [dt.datetime(2026, 1, 1), None, dt.datetime(2026, 1, 2)],
    "date": [dt.date(2026, 1, 1), None, dt.date(2026, 1, 2)],
    "duration": [dt.timedelta(1), None, dt.timedelta(2)],
    "decimal": [decimal.Decimal("1.5"), None, decimal.Decimal("2.5")],
    "list": [[1, 2], None, []],
    "struct": [{"a": 1}, None, {"a": 2}],
}
EACH = pytest.mark.parametrize("values", COLUMNS.values(), ids=COLUMNS.keys())
MAKERS = pytest.mark.parametrize("make", [pa.array, pl.Series], ids=["arrow", "polars"])


@MAKERS
@EACH
def test_every_kind_of_column_counts_by_value(make: Any, values: list[Any]) -> None:
    shifted = [*values[1:], values[0]]
    assert fingerprint(make(values)) == fingerprint(make(list(values))) != fingerprint(make(shifted))
    assert fingerprint(make(values)) != fingerprint(values)


@EACH
def test_chunks_and_offsets_do_not_count(values: list[Any]) -> None:
    whole = pa.array(values * 3)
    parts = pa.chunked_array([whole.slice(0, 2), whole.slice(2)])
    assert fingerprint(parts) == fingerprint(whole)
    assert fingerprint(whole.slice(3, 3)) == fingerprint(pa.array(values, whole.type))
    series = pl.Series("s", values)
    pieces = pl.concat([series.slice(0, 1), series.slice(1)], rechunk=False)
    assert fingerprint(pieces) == fingerprint(series)


def test_what_lies_below_a_null_does_not_count() -> None:
    mask = pa.py_buffer(b"\1")
    one, other = (
        pa.Array.from_buffers(pa.int8(), 2, [mask, pa.py_buffer(bytes((1, hidden)))]) for hidden in (7, 9)
    )
    assert fingerprint(one) == fingerprint(other) == fingerprint(pa.array([1, None], pa.int8()))


def test_dictionaries_count_by_value() -> None:
    one = pa.array(["u", "v"]).dictionary_encode()
    other = pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int32()), ["v", "u"])
    assert fingerprint(one) == fingerprint(other) != fingerprint(pa.array(["u", "v"]))
    assert fingerprint(pl.Series(["u", "v"], dtype=pl.Categorical)) != fingerprint(pl.Series(["u", "v"]))


def test_tables() -> None:
    table = pa.table({"a": [1, 2], "b": ["x", "y"]})
    assert fingerprint(table) == fingerprint(table.replace_schema_metadata({"made": "now"}))
    assert fingerprint(table) != fingerprint(table.rename_columns(["a", "c"]))
    assert fingerprint(table) != fingerprint(table.cast(pa.schema({"a": pa.int32(), "b": pa.string()})))
    assert fingerprint(table) != fingerprint(table.to_batches()[0])
    assert fingerprint(table["a"][0]) != fingerprint(1)


def test_frames() -> None:
    frame = pl.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    assert fingerprint(frame) == fingerprint(frame.clone())
    assert fingerprint(frame) != fingerprint(frame.select("b", "a"))
    assert fingerprint(frame) != fingerprint(frame.rename({"a": "c"}))
    assert fingerprint(frame) != fingerprint(frame.cast({"a": pl.Int32}))
    assert fingerprint(pl.DataFrame({"a": []})) != fingerprint(pl.DataFrame())


def test_a_query_that_has_not_run_is_refused() -> None:
    with pytest.raises(HashError, match=r"^inputs\[0\]: is a query that has not run"):
        fingerprint([pl.LazyFrame({"a": [1]})], name="inputs")
