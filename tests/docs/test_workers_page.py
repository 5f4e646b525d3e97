"""The worker type on the page about workers is one that works."""

from __future__ import annotations

import re
from typing import Any

from headrace.core.ids import new_id
from headrace.v1.run_pb2 import AttemptRef, Run
from headrace.v1.worker_service_pb2 import Assignment
from tests.support.tools import ROOT

FENCE = re.compile(r"^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


async def test_the_type_on_the_page_runs_a_run() -> None:
    [fence] = FENCE.finditer((ROOT / "docs" / "workers.md").read_text())
    names: dict[str, Any] = {"__name__": "page"}
    exec(fence["code"], names)
    worker = names["BatchWorker"]()
    template = worker.get_default_base_job_template()
    assert template["variables"]["properties"]["queue"]["default"] == "short"
    run_id = new_id()
    attempt = AttemptRef(run_id=run_id, attempt=1, fence=1)
    assignment = Assignment(attempt=attempt, run=Run(id=run_id, name="r"))
    assignment.job_variables.update({"queue": "long"})
    identifiers: list[str] = []
    async with worker:
        configuration = worker.configure(assignment, template)
        result = await worker.run(configuration, assignment, identifiers.append)
    assert (configuration.queue, result.status_code) == ("long", 3)
    assert configuration.env["HEADRACE__FLOW_RUN_ID"] == run_id
    assert identifiers[0].startswith("batch:")
