"""Delays between attempts: their forms, the bounds of jitter, and what is refused."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.retry import (
    DELAYS_MAX,
    delay_before_retry,
    exponential_backoff,
    jitter_bounds,
    jittered,
    normal_delays,
    valid_jitter_factor,
)


class Fixed:
    """Always draws the same number."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


@pytest.mark.parametrize(
    ("given", "retries", "expected"),
    [
        (None, 3, ()),
        (0, 3, (0.0,)),
        (2, 3, (2.0,)),
        (1.5, 0, (1.5,)),
        ([1, 2.5], 5, (1.0, 2.5)),
        ((1,), 5, (1.0,)),
        ([], 5, ()),
        (exponential_backoff(3), 4, (3.0, 6.0, 12.0, 24.0)),
        (lambda retries: [retries * 10.0], 2, (20.0,)),
    ],
)
def test_delays_in_every_form(given: Any, retries: int, expected: tuple[float, ...]) -> None:
    assert normal_delays(given, retries) == expected


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ([1.0] * (DELAYS_MAX + 1), ValueError),
        (-1, ValueError),
        ([1, -1], ValueError),
        (math.inf, ValueError),
        (math.nan, ValueError),
        ("5", TypeError),
        (["5"], TypeError),
        (True, TypeError),
        ({1: 2}, TypeError),
        (lambda retries: "soon", TypeError),
    ],
)
def test_what_is_no_delay_is_refused(given: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        normal_delays(given, 3)


def test_exponential_backoff_makes_no_more_delays_than_may_be_given() -> None:
    assert len(normal_delays(exponential_backoff(1), 1000)) == DELAYS_MAX


@pytest.mark.parametrize("factor", [-1, math.inf, math.nan])
def test_a_backoff_factor_must_be_a_sensible_number(factor: float) -> None:
    with pytest.raises(ValueError, match="backoff_factor"):
        exponential_backoff(factor)


@pytest.mark.parametrize(("factor", "error"), [(-0.1, ValueError), (math.nan, ValueError), ("1", TypeError)])
def test_a_jitter_factor_must_be_a_sensible_number(factor: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="retry_jitter_factor"):
        valid_jitter_factor(factor)


def test_no_jitter_is_a_factor_of_zero() -> None:
    assert valid_jitter_factor(None) == 0.0


def test_the_last_delay_repeats() -> None:
    delays = (1.0, 2.0)
    assert [delay_before_retry(retry, delays) for retry in (1, 2, 3, 9)] == [1.0, 2.0, 2.0, 2.0]


def test_without_delays_there_is_no_wait_and_no_draw() -> None:
    assert delay_before_retry(1, (), 1.0) == 0.0
    assert delay_before_retry(1, (0.0,), 1.0) == 0.0


def test_retries_are_counted_from_one() -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        delay_before_retry(0, (1.0,))


def test_jitter_without_a_source_of_randomness_is_an_error_of_the_caller() -> None:
    with pytest.raises(ValueError, match="source of randomness"):
        delay_before_retry(1, (1.0,), 0.5)


@pytest.mark.parametrize(
    ("factor", "low", "high"),
    [(0.1, 0.906, 1.1), (0.3, 0.752, 1.3), (1, 0.415, 2.0), (5, 0.023, 6.0), (49, 0.0, 50.0)],
)
def test_the_bounds_of_jitter(factor: float, low: float, high: float) -> None:
    assert jitter_bounds(factor) == (pytest.approx(low, abs=0.0006), high)


@pytest.mark.parametrize("factor", [0.1, 1.0, 5.0])
def test_jitter_stays_inside_its_bounds_varies_and_repeats_under_a_seed(factor: float) -> None:
    def draw(seed: int) -> list[float]:
        source = random.Random(seed)
        return [delay_before_retry(1, (10.0,), factor, source) for _ in range(10_000)]

    drawn = draw(7)
    low, high = jitter_bounds(factor)
    assert min(drawn) >= 10.0 * low
    assert max(drawn) <= 10.0 * high
    assert len(set(drawn)) > 9_900
    assert drawn == draw(7)
    assert drawn != draw(8)


def test_jitter_follows_the_exponential_distribution_between_its_bounds() -> None:
    # The draw is the inverse of the distribution function, so the middle of [0, 1) gives the median.
    low, high = jitter_bounds(1.0)
    median = jittered(1.0, 1.0, Fixed(0.5))

    def below(x: float) -> float:
        return 1 - math.exp(-x)

    assert below(median) - below(low) == pytest.approx(below(high) - below(median))


@given(
    delay=st.floats(1e-6, 1e9),
    factor=st.floats(1e-6, 1e9),
    drawn=st.floats(0, 1, exclude_max=True),
)
def test_jitter_is_within_its_bounds_for_any_delay_factor_and_draw(
    delay: float, factor: float, drawn: float
) -> None:
    low, high = jitter_bounds(factor)
    result = jittered(delay, factor, Fixed(drawn))
    assert delay * low <= result <= delay * high
    assert math.isfinite(result)


@given(retries=st.integers(0, 200), make=st.sampled_from([exponential_backoff(0.5), exponential_backoff(0)]))
def test_backoff_never_makes_more_delays_than_retries(
    retries: int, make: Callable[[int], list[float]]
) -> None:
    assert len(make(retries)) == min(retries, DELAYS_MAX)
