"""What counts in frames: labels, their types, the index, values; not how they lie in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from headrace.core.fingerprint import fingerprint

FRAME = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None]}, index=[10, 11, 12])


def test_copies_and_slices_are_one() -> None:
    whole = pd.concat([FRAME, FRAME], ignore_index=False)
    assert fingerprint(FRAME.copy()) == fingerprint(whole.iloc[:3]) == fingerprint(FRAME)
    assert fingerprint(whole.iloc[::-1].iloc[::-1]) == fingerprint(whole)


@pytest.mark.parametrize(
    "other",
    [
        FRAME[["b", "a"]],
        FRAME.rename(columns={"a": "c"}),
        FRAME.rename_axis("n"),
        FRAME.reset_index(drop=True),
        FRAME.astype({"a": "int32"}),
        FRAME.astype({"a": "Int64"}),
        FRAME.astype({"b": "category"}),
        FRAME.assign(a=[1, 2, 4]),
        FRAME["a"],
        FRAME.to_dict(),
    ],
    ids=["order", "label", "index name", "index", "width", "nullable", "category", "value", "series", "dict"],
)
def test_differences_count(other: Any) -> None:
    assert fingerprint(other) != fingerprint(FRAME)


def test_columns_of_one_name_are_all_seen() -> None:
    one, other = (pd.DataFrame([[1, number]], columns=["a", "a"]) for number in (2, 3))
    assert fingerprint(one) != fingerprint(other)


def test_what_is_missing_counts_by_kind() -> None:
    kinds = [None, float("nan"), pd.NA, pd.NaT]
    series = [pd.Series(["a", kind], dtype=object) for kind in kinds]
    assert len({fingerprint(one) for one in series}) == len(kinds)


def test_categories_count_by_values() -> None:
    one = pd.Series(pd.Categorical(["u", "v"], categories=["u", "v"]))
    other = pd.Series(pd.Categorical(["u", "v"], categories=["v", "u", "w"]))
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one.cat.as_ordered()) != fingerprint(other.cat.as_ordered())


@pytest.mark.parametrize(
    "values",
    [
        lambda last: pd.array([1, last], dtype="Int16"),
        lambda last: pd.array([1, None, last], dtype="Float32"),
        lambda last: pd.array([True, None, last > 2], dtype="boolean"),
        lambda last: pd.array(["a", str(last)], dtype="string"),
        lambda last: pd.date_range("2026-01-01", periods=last, tz="Europe/Paris"),
        lambda last: pd.date_range("2026-01-01", periods=last),
        lambda last: pd.timedelta_range("1h", periods=last),
        lambda last: pd.period_range("2026-01", periods=last, freq="M"),
        lambda last: pd.interval_range(0, last),
        lambda last: pd.arrays.SparseArray([0, 0, last]),
        lambda last: pd.RangeIndex(last),
        lambda last: pd.MultiIndex.from_product([["a"], range(last)]),
        lambda last: pd.Timestamp(last, unit="s", tz="UTC"),
        lambda last: pd.Timedelta(last, unit="s"),
        lambda last: pd.Period(f"2026-0{last}", freq="M"),
        lambda last: pd.Interval(0, last),
        lambda last: pd.api.types.CategoricalDtype(range(last)),
    ],
)
def test_every_kind_of_column_counts_by_value(values: Any) -> None:
    assert fingerprint(values(2)) == fingerprint(values(2)) != fingerprint(values(3))


def test_zones_count() -> None:
    moment = pd.Series(pd.to_datetime(["2026-01-01"]).tz_localize("UTC"))
    assert fingerprint(moment) != fingerprint(moment.dt.tz_convert("Europe/Paris"))


def test_under_a_mask_nothing_counts() -> None:
    one, other = (np.ma.array([1, hidden], mask=[False, True]) for hidden in (2, 3))
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one) != fingerprint(np.ma.array([1, 0]))


def test_padding_of_records_does_not_count() -> None:
    layout = np.dtype([("a", "i1"), ("b", "f8")], align=True)
    noise = np.frombuffer(b"\1" + b"\xff" * 7 + b"\0" * 8, dtype=layout)
    assert fingerprint(noise) == fingerprint(np.array([(1, 0.0)], dtype=layout))


def test_objects_in_arrays_are_named_in_errors() -> None:
    from headrace.core.fingerprint import HashError

    with pytest.raises(HashError, match=r"^inputs\.values\[0\]\.values\[1\]: .*generator"):
        fingerprint(pd.DataFrame({"a": ["x", (n for n in ())]}), name="inputs")
