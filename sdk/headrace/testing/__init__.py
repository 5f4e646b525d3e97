"""For the tests of those who write flows: a server of their own, time that skips, assertions on states.

import pytest
from headrace.testing import headrace_test_harness

@pytest.fixture(scope="session", autouse=True)
def headrace_server():
    with headrace_test_harness():
        yield
"""

from headrace.logging import disable_run_logger
from headrace.testing.assertions import assert_does_not_warn, assert_state
from headrace.testing.skipping import skip_time
from headrace.testing.utilities import Harness, get_most_recent_flow_run, headrace_test_harness

__all__ = [
    "Harness",
    "assert_does_not_warn",
    "assert_state",
    "disable_run_logger",
    "get_most_recent_flow_run",
    "headrace_test_harness",
    "skip_time",
]
