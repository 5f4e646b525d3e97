"""What flow runs are told while they run: answers to pauses, and messages.

from headrace.input import RunInput, receive_input, send_input
"""

from __future__ import annotations

from headrace.input.actions import (
    adelete_flow_run_input,
    afilter_flow_run_input,
    aread_flow_run_input,
    create_flow_run_input,
    delete_flow_run_input,
    filter_flow_run_input,
    read_flow_run_input,
)
from headrace.input.receiving import GetAutomaticInputHandler, GetInputHandler, receive_input
from headrace.input.run_input import (
    AutomaticRunInput,
    RunInput,
    RunInputMetadata,
    asend_input,
    run_input_subclass_from_type,
    send_input,
)

__all__ = [
    "AutomaticRunInput",
    "GetAutomaticInputHandler",
    "GetInputHandler",
    "RunInput",
    "RunInputMetadata",
    "adelete_flow_run_input",
    "afilter_flow_run_input",
    "aread_flow_run_input",
    "asend_input",
    "create_flow_run_input",
    "delete_flow_run_input",
    "filter_flow_run_input",
    "read_flow_run_input",
    "receive_input",
    "run_input_subclass_from_type",
    "send_input",
]
