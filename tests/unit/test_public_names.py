"""The public surface of the package, and what importing it costs."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
from typing import Any

import pytest

import headrace

NAMES = [
    "Flow",
    "State",
    "Task",
    "Transaction",
    "allow_failure",
    "apause_flow_run",
    "aresume_flow_run",
    "aserve",
    "asuspend_flow_run",
    "deploy",
    "flow",
    "get_client",
    "get_run_logger",
    "opaque",
    "pause_flow_run",
    "quote",
    "resume_flow_run",
    "runtime",
    "serve",
    "suspend_flow_run",
    "tags",
    "task",
    "unmapped",
]

MODULES = {
    "headrace.assets": ["Asset", "AssetProperties", "MaterializingTask", "add_asset_metadata", "materialize"],
    "headrace.client.orchestration": ["HeadraceClient", "SyncHeadraceClient", "get_client"],
    "headrace.context": [
        *("FlowRunContext", "TagsContext", "TaskRunContext", "get_run_context", "tags"),
        *("hydrated_context", "serialize_context", "SettingsContext", "get_settings_context", "use_profile"),
    ],
    "headrace.events": ["Event", "ReceivedEvent", "RelatedResource", "Resource", "emit_event"],
    "headrace.exceptions": ["ConfigurationError", "HashError", "HeadraceException", "ObjectNotFound"],
    "headrace.flows": ["Flow", "aserve", "flow", "load_flow_from_entrypoint", "serve"],
    "headrace.flow_runs": [
        *("apause_flow_run", "aresume_flow_run", "asuspend_flow_run"),
        *("pause_flow_run", "resume_flow_run", "suspend_flow_run", "wait_for_flow_run"),
    ],
    "headrace.futures": [
        *("DoneAndNotDoneFutures", "as_completed", "resolve_futures_to_results", "wait"),
    ],
    "headrace.input": ["RunInput", "RunInputMetadata", "asend_input", "receive_input", "send_input"],
    "headrace.results": ["ResultRecord", "ResultStore", "StoredResult", "get_result_store"],
    "headrace.runtime": ["flow_run", "task_run", "deployment"],
    "headrace.schedules": ["CatchUp", "Cron", "Interval", "Overlap", "RRule", "Schedule", "ScheduleInvalid"],
    "headrace.serializers": [
        *("CompressedJSONSerializer", "CompressedPickleSerializer", "CompressedSerializer"),
        *("JSONSerializer", "PickleSerializer", "Serializer"),
    ],
    "headrace.states": ["Cancelled", "Completed", "Failed", "State", "StateGroup", "raise_state_exception"],
    "headrace.task_runners": [
        *("ConcurrentTaskRunner", "ProcessPoolTaskRunner", "TaskRunner", "ThreadPoolTaskRunner"),
    ],
    "headrace.tasks": [
        *("MaterializingTask", "Task", "TaskOptions", "exponential_backoff", "task", "task_input_hash"),
    ],
    "headrace.testing.utilities": [
        *("assert_does_not_warn", "disable_run_logger", "get_most_recent_flow_run", "headrace_test_harness"),
    ],
    "headrace.transactions": [
        "CommitMode",
        "IsolationLevel",
        "atransaction",
        "get_transaction",
        "transaction",
    ],
    "headrace.types": ["SecretDict"],
    "headrace.utilities.annotations": ["allow_failure", "opaque", "quote", "unmapped"],
}


def test_the_names_of_the_package() -> None:
    assert sorted(headrace.__all__) == NAMES
    assert set(NAMES) <= set(dir(headrace))
    for name in NAMES:
        assert getattr(headrace, name) is not None


def test_the_version() -> None:
    assert headrace.__version__ == importlib.metadata.version("headrace")


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        headrace.nonsense  # noqa: B018


@pytest.mark.parametrize(("module", "names"), MODULES.items())
def test_the_names_of_the_modules(module: str, names: list[str]) -> None:
    loaded: Any = importlib.import_module(module)
    for name in names:
        assert hasattr(loaded, name)
        assert name in loaded.__all__


def loaded_by(program: str) -> set[str]:
    code = f"{program}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_else() -> None:
    loaded = {name for name in loaded_by("import headrace") if name.startswith("headrace")}
    assert loaded == {"headrace"}


@pytest.mark.parametrize(
    "heavy",
    [
        "grpc",
        "pydantic",
        "sqlalchemy",
        "alembic",
        "rich",
        "cyclopts",
        "httpx",
        "opentelemetry",
        "cloudpickle",
    ],
)
def test_decorating_loads_nothing_heavy(heavy: str) -> None:
    program = "from headrace import flow, task\n@task\ndef t(): ...\n@flow\ndef f(): ..."
    assert heavy not in loaded_by(program)
