"""Fingerprints of values: equal values have equal ones, in every process, on every machine.

    fingerprint({"day": date(2026, 3, 1), "shops": {"b", "a"}})

Cache keys and replay stand on them. A fingerprint never depends on `hash()`, `id()`, `repr()`, pickles or the
order of sets and dicts; types count, so `1`, `True`, `1.0`, `"1"` and `b"1"` differ.
"""

from headrace.core.fingerprint.encoder import fingerprint
from headrace.core.fingerprint.nodes import HashError
from headrace.core.fingerprint.registry import register_cache_encoder

__all__ = ["HashError", "fingerprint", "register_cache_encoder"]
