"""What a worker is told of a run."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from headrace.core.ids import new_id
from headrace.v1.deployment_pb2 import Deployment
from headrace.v1.run_pb2 import Run
from headrace_services.rpc.worker_messages import assignment_of
from headrace_services.storage.claiming import Claimed

LAYERS: list[tuple[dict[str, Any] | None, dict[str, Any] | None, dict[str, Any]]] = [
    (None, None, {}),
    ({"image": "a"}, None, {"image": "a"}),
    ({"image": "a", "cpu": 1}, {"image": "b"}, {"image": "b", "cpu": 1}),
    # What a run says of one variable of the environment leaves the others alone.
    ({"env": {"A": "d", "B": "d"}}, {"env.A": "r"}, {"env": {"A": "r", "B": "d"}}),
    ({"env": {"A": "d", "B": "d"}}, {"env": {"A": None}}, {"env": {"A": None, "B": "d"}}),
    ({"env.A": "d"}, {"env": {"B": "r"}}, {"env": {"A": "d", "B": "r"}}),
]


@pytest.mark.parametrize(("of_deployment", "of_run", "told"), LAYERS)
def test_job_variables_of_deployment_and_run_are_merged(
    of_deployment: dict[str, Any] | None, of_run: dict[str, Any] | None, told: dict[str, Any]
) -> None:
    deployment, run = Deployment(name="d", entrypoint="a:b"), Run(id=new_id(), attempt=1, fence=2)
    if of_deployment is not None:
        deployment.job_variables.update(of_deployment)
    if of_run is not None:
        run.job_variables.update(of_run)
    assignment = assignment_of(Claimed(new_id(), new_id(), run, deployment, 0, 1), 0)
    assert json.loads(json.dumps(MessageToDict(assignment.job_variables))) == told
    assert assignment.entrypoint == "a:b"


def test_a_run_without_a_deployment_is_told_of_too() -> None:
    run = Run(id=new_id(), attempt=1, fence=2)
    run.job_variables.update({"env.A": 1})
    assignment = assignment_of(Claimed(new_id(), new_id(), run, None, 0, 1), 0)
    assert MessageToDict(assignment.job_variables) == {"env": {"A": 1}}
