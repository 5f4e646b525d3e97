"""What the code that runs now may know about its run.

    from headrace.runtime import flow_run

    path = f"/data/{flow_run.name}.parquet"

Attributes are read when they are used. Outside of a run they are None, `[]`, `{}` or 0. For tests, each can
be given in the environment: `HEADRACE__RUNTIME__FLOW_RUN__NAME=nightly`.

`now()`, `uuid()` and `random()` give values which stay what they are when the body of a durable flow is run
again.
"""

from headrace.runtime import deployment, flow_run, task_run
from headrace.runtime.values import now, random, uuid

__all__ = ["deployment", "flow_run", "now", "random", "task_run", "uuid"]
