"""Names for runs that nobody named."""

from __future__ import annotations

import random
import re

from headrace.core.names import ADJECTIVES, ANIMALS, slug, suffix


def test_there_are_enough_words_each_once_and_plain() -> None:
    for words in (ADJECTIVES, ANIMALS):
        assert len(words) >= 100
        assert len(set(words)) == len(words)
        assert all(re.fullmatch(r"[a-z]{2,14}", word) for word in words)


def test_a_slug_is_two_words_and_follows_its_source() -> None:
    assert re.fullmatch(r"[a-z]+-[a-z]+", slug(random.Random(1)))
    assert slug(random.Random(1)) == slug(random.Random(1))
    source = random.Random(2)
    assert len({slug(source) for _ in range(1000)}) > 900


def test_a_suffix_is_a_few_letters_and_digits() -> None:
    source = random.Random(3)
    assert re.fullmatch(r"[0-9a-z]{3}", suffix(source))
    assert len(suffix(source, 8)) == 8
    assert len({suffix(source) for _ in range(200)}) > 190
