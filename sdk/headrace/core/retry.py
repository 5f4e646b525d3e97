"""When to try again: the arithmetic of delays between attempts.

Nothing here waits or draws random numbers by itself: the source of randomness is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

__all__ = [
    "DELAYS_MAX",
    "Delays",
    "Uniform",
    "delay_before_retry",
    "exponential_backoff",
    "jitter_bounds",
    "jittered",
    "normal_delays",
    "valid_jitter_factor",
]

DELAYS_MAX: Final = 50
"""How many delays may be given one by one."""

Delays: TypeAlias = float | Sequence[float] | Callable[[int], list[float]]
"""One number of seconds for all retries; one per retry, the last of which repeats; or a function that
makes that list from the number of retries."""


class Uniform(Protocol):
    """A source of randomness, such as a `random.Random`."""

    def random(self) -> float:
        """A number in [0, 1), each equally likely."""
        ...


def exponential_backoff(backoff_factor: float) -> Callable[[int], list[float]]:
    """Delays that double: `backoff_factor * 2**i` seconds before the i-th retry, counted from 0.

    To be given as `retry_delay_seconds`. At most `DELAYS_MAX` are made; the last repeats.

    Raises:
        ValueError: the factor is negative or no finite number.
    """
    _valid_seconds(backoff_factor, "backoff_factor")

    def delays(retries: int) -> list[float]:
        return [backoff_factor * 2**i for i in range(min(retries, DELAYS_MAX))]

    return delays


def normal_delays(delays: Delays | None, retries: int) -> tuple[float, ...]:
    """`delays` in one form: seconds, one per retry, of which the last repeats; empty for no delay.

    A function is called here, once.

    Raises:
        ValueError: there are more than `DELAYS_MAX`, or one is negative or not finite.
        TypeError: the value, or an item, is no number.
    """
    given: Any = delays(retries) if callable(delays) else delays
    if given is None:
        return ()
    if isinstance(given, (str, bytes)) or not isinstance(given, (int, float, Sequence)):
        raise TypeError(
            "retry_delay_seconds must be a number, a list of numbers or a function of the number of retries"
            f" that gives one, not {given!r}"
        )
    items: list[Any] = [*given] if isinstance(given, Sequence) else [given]
    if len(items) > DELAYS_MAX:
        raise ValueError(f"Can not configure more than {DELAYS_MAX} retry delays per task; got {len(items)}.")
    return tuple(_valid_seconds(item, "retry_delay_seconds") for item in items)


def valid_jitter_factor(factor: float | None) -> float:
    """The factor, 0 for None.

    Raises:
        ValueError: it is negative or not finite.
        TypeError: it is no number.
    """
    return 0.0 if factor is None else _valid_seconds(factor, "retry_jitter_factor")


def delay_before_retry(
    retry: int, delays: Sequence[float], jitter_factor: float = 0.0, source: Uniform | None = None
) -> float:
    """Seconds to wait before a retry.

    Args:
        retry: which one, from 1.
        delays: from `normal_delays`.
        jitter_factor: see `jittered`; 0 for none.
        source: drawn from once, when there is jitter.

    Raises:
        ValueError: `retry` is less than 1, or there is jitter and no `source`.
    """
    if retry < 1:
        raise ValueError(f"Retries are counted from 1, got {retry}.")
    if not delays:
        return 0.0
    delay = delays[min(retry, len(delays)) - 1]
    if not jitter_factor or not delay:
        return delay
    if source is None:
        raise ValueError("Jitter needs a source of randomness.")
    return jittered(delay, jitter_factor, source)


def jitter_bounds(factor: float) -> tuple[float, float]:
    """Least and greatest delay under jitter, as multiples of the delay.

    The greatest is `1 + factor`; the least is chosen so that both tails which are cut off have the same
    probability, which keeps half of all delays below the delay's natural median.
    """
    k = 1.0 + factor
    # Above 50 the lower bound is less than one part in 10**15.
    low = 0.0 if k >= 50 else math.log2(2**k / (2**k - 1))
    return low, k


def jittered(delay: float, factor: float, source: Uniform) -> float:
    """A delay drawn from an exponential distribution of mean `delay`, cut to `jitter_bounds(factor)`.

    So that many runs which failed together do not come back together.

    Args:
        delay: seconds, above 0.
        factor: above 0; 0.1 gives 0.906 to 1.1 times the delay, 1 gives 0.415 to 2 times.
        source: drawn from once.
    """
    low, high = jitter_bounds(factor)
    # The inverse of the distribution function, over the part of [0, 1) that lies between the bounds.
    lowest, highest = -math.expm1(-low), -math.expm1(-high)
    drawn = -math.log1p(-(lowest + source.random() * (highest - lowest)))
    return delay * min(max(drawn, low), high)


def _valid_seconds(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{name} must be a finite number that is not negative, got {value!r}")
    return float(value)
