"""How much a loop of the server does in one transaction."""

from __future__ import annotations

from headrace_services.loops.batch_size import BatchSize

ALLOWED = 0.03


def test_it_grows_until_a_batch_takes_as_long_as_it_may() -> None:
    size = BatchSize(least=25, most=150)
    for _ in range(50):
        size.took(size.count * 0.0005, size.count, ALLOWED)
    assert 45 <= size.count <= 66
    for _ in range(50):
        size.took(size.count * 0.0001, size.count, ALLOWED)
    assert size.count == 150


def test_one_slow_batch_halves_it_at_most_and_many_do_not_make_it_nothing() -> None:
    size = BatchSize(least=25, most=150)
    for _ in range(50):
        size.took(0.001, size.count, ALLOWED)
    size.took(10.0, size.count, ALLOWED)
    assert size.count == 75
    for _ in range(10):
        size.took(10.0, size.count, ALLOWED)
    assert size.count == 25


def test_what_found_little_to_do_says_nothing_of_larger_batches() -> None:
    size = BatchSize(least=25, most=150)
    size.took(0.001, 3, ALLOWED)
    assert size.count == 25
