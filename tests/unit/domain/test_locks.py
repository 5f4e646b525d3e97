"""Who may have a lock, and for how long; instants are plain numbers."""

from __future__ import annotations

from dataclasses import replace

from headrace_services.domain.locks import Holding, acquired, renewed

HELD = Holding("a", fence=7, acquired_at=100, expires_at=130, hold_until=None, lease=30)
LONG_AGO = 0


def test_a_lock_that_nobody_has() -> None:
    assert acquired(None, "a", 100, 30, None, LONG_AGO) == replace(HELD, fence=100)


def test_a_hold_timeout_limits_the_lease() -> None:
    held = acquired(None, "a", 100, 30, 10, LONG_AGO)
    assert held is not None
    assert (held.expires_at, held.hold_until) == (110, 110)
    assert renewed(held, "a", held.fence, 105, 30) == held
    assert renewed(held, "a", held.fence, 110, 30) is None


def test_somebody_else_waits_for_the_end_of_the_lease() -> None:
    assert acquired(HELD, "b", 129, 30, None, LONG_AGO) is None
    taken = acquired(HELD, "b", 130, 30, None, LONG_AGO)
    assert taken == Holding("b", 130, 130, 160, None, 30)


def test_a_fence_grows_even_if_the_clock_does_not() -> None:
    taken = acquired(replace(HELD, fence=1000), "b", 130, 30, None, LONG_AGO)
    assert taken is not None
    assert taken.fence == 1001


def test_the_holder_gets_it_again_under_the_same_fence_with_new_limits() -> None:
    assert acquired(HELD, "a", 120, 50, 20, LONG_AGO) == replace(
        HELD, expires_at=140, hold_until=140, lease=50
    )


def test_a_holder_whose_time_is_over_is_a_new_one() -> None:
    again = acquired(HELD, "a", 130, 30, None, LONG_AGO)
    assert again is not None
    assert again.fence > HELD.fence


def test_a_lease_does_not_end_while_nobody_could_renew_it() -> None:
    # The server is back since 200: whoever holds the lock has had no chance to say so before.
    assert acquired(HELD, "b", 200, 30, None, heard_since=200) is None
    assert acquired(HELD, "b", 229, 30, None, heard_since=200) is None
    assert acquired(HELD, "b", 230, 30, None, heard_since=200) is not None


def test_an_outage_does_not_prolong_a_hold_timeout() -> None:
    limited = replace(HELD, hold_until=150)
    assert acquired(limited, "b", 150, 30, None, heard_since=149) is not None


def test_renewing() -> None:
    assert renewed(HELD, "a", 7, 120, 30) == replace(HELD, expires_at=150)
    # It has run out, but nobody else has wanted it.
    assert renewed(HELD, "a", 7, 500, 30) == replace(HELD, expires_at=530)
    assert renewed(HELD, "a", 6, 120, 30) is None
    assert renewed(HELD, "b", 7, 120, 30) is None
    assert renewed(None, "a", 7, 120, 30) is None
