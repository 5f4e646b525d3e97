"""Messages as JSON: every key, always, in the form that scripts rely on."""

from __future__ import annotations

import json

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.cli.as_json import to_json
from headrace.v1.log_pb2 import LogEntry
from headrace.v1.payload_pb2 import BlobRef, Payload
from headrace.v1.run_pb2 import RetryPolicy, Run, RunInputEdge, RunKind
from headrace.v1.run_service_pb2 import ProposeStateResponse
from headrace.v1.state_pb2 import CompletedDetails, FailedDetails, State, StateType


def test_an_empty_run_has_every_key() -> None:
    found = to_json(Run())
    assert list(found) == [field.name for field in Run.DESCRIPTOR.fields]
    assert found["kind"] is None
    assert found["state"] is None
    assert found["tags"] == []
    assert found["labels"] == {}
    assert found["fence"] == 0


def test_values_have_the_form_that_is_documented() -> None:
    run = Run(id="a", kind=RunKind.RUN_KIND_TASK, labels={"b": "2", "a": "1"}, fence=2**40)
    run.create_time.CopyFrom(Timestamp(seconds=1_700_000_000, nanos=5_000_000))
    run.timeout.FromMilliseconds(1500)
    run.inputs.append(RunInputEdge(parameter="x", run_ids=["r1"]))
    run.retry_policy.CopyFrom(RetryPolicy(max_retries=2))
    run.job_variables.update({"cpu": 2, "gpu": 0.5, "names": ["a", None], "nested": {"on": True}})
    found = to_json(run)
    assert found["kind"] == "TASK"
    assert found["create_time"] == "2023-11-14T22:13:20.005000Z"
    assert found["timeout"] == 1.5
    assert found["fence"] == 2**40
    assert list(found["labels"]) == ["a", "b"]
    assert found["inputs"] == [{"parameter": "x", "run_ids": ["r1"]}]
    assert found["job_variables"] == {"cpu": 2, "gpu": 0.5, "names": ["a", None], "nested": {"on": True}}
    assert found["retry_policy"]["on_lost"] is None
    json.dumps(found)


def test_a_payload_is_its_value_where_that_is_json() -> None:
    run = Run(parameters=Payload(encoding="json", inline=b'{"n":1}'))
    assert to_json(run)["parameters"] == {"n": 1}


def test_other_payloads_are_described_and_never_decoded() -> None:
    pickled = Payload(encoding="pickle", inline=b"\x80\x04N.", metadata={"python": "3.11"})
    assert to_json(pickled) == {"encoding": "pickle", "metadata": {"python": "3.11"}, "size_bytes": 4}
    broken = Payload(encoding="json", inline=b"{")
    assert to_json(broken) == {"encoding": "json", "metadata": {}, "size_bytes": 1}
    stored = Payload(encoding="json", blob=BlobRef(uri="file:///x", size_bytes=9, sha256=b"\0" * 32))
    assert to_json(stored) == {"encoding": "json", "metadata": {}, "uri": "file:///x", "size_bytes": 9}


def test_only_the_member_of_a_oneof_that_is_set_appears() -> None:
    state = State(type=StateType.STATE_TYPE_COMPLETED, completed=CompletedDetails(from_cache=True))
    found = to_json(state)
    assert found["completed"] == {
        "cache_key": "",
        "cache_expire_time": None,
        "from_cache": True,
        "returned_state": False,
        "untrackable_result": False,
        "producer_run_id": "",
    }
    assert "failed" not in found
    assert to_json(ProposeStateResponse()) == {}


def test_an_optional_field_is_null_until_it_is_set() -> None:
    assert to_json(FailedDetails())["retriable"] is None
    assert to_json(FailedDetails(retriable=False))["retriable"] is False


def test_a_value_from_a_newer_server_is_its_number() -> None:
    assert to_json(State(type=77))["type"] == "77"  # pyright: ignore[reportArgumentType]


def test_log_fields_are_plain_json() -> None:
    entry = LogEntry(message="x")
    entry.fields.update({"rows": 3})
    assert to_json(entry)["fields"] == {"rows": 3}
