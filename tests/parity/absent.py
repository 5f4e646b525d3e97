"""What Prefect's modules offer to authors of flows and headrace does not, and why.

`peer/public.py` says what Prefect offers. What is there, and not listed here, is named like theirs, with the
one word replaced.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ABSENT", "OTHER_DEFAULTS"]

_INSIDE: Final = "inside of Prefect's engine, not for programs"
_CLIENT: Final = "the client is another one, got by `get_client()`"
_HTTP: Final = "about HTTP, which is not spoken here"
_LATER: Final = "belongs to what docs/features.md says is not there yet"
_LIMITS: Final = "about a service that limits how many objects there may be: here nothing does"
_PYDANTIC: Final = "comes with the base class of Prefect's schemas"
_STATES: Final = "states are made by the engine, and by the constructors of `headrace.states`"
_INPUTS: Final = "inputs are sent and received; how they are stored is the server's affair"
_ASKED: Final = "the attribute is read: `runtime.flow_run.name`, not `get_name()`"
_CONTEXT: Final = "the settings in force are asked for: `get_current_settings()`, `SettingsContext.get()`"
_TESTS: Final = "for Prefect's own tests"
_FORM: Final = "tells how a function was decorated, which `inspect` tells of `fn`"
_ERRORS: Final = "errors of the server are those of `headrace.core.errors`, by their gRPC codes"
_LOADING: Final = "flows are loaded by `load_flow_from_entrypoint`, and in full"
_TYPES: Final = "a type of annotations only"
_LOCAL: Final = "a kind of future that makes no difference to programs"
_ASYNC: Final = "asks nobody: the plain one never waits"
_CACHE: Final = "what is kept in memory is the store's affair: `cache_result_in_memory`"
_SUBSTITUTE: Final = "another name for one that is here"

ABSENT: Final[dict[str, dict[str, str]]] = {
    "names of headrace.context": {
        **dict.fromkeys(
            ["AssetContext", "ContextModel"],
            _INSIDE,
        ),
        **dict.fromkeys(
            ["AsyncClientContext", "SyncClientContext"],
            _CLIENT,
        ),
        "EngineContext": _SUBSTITUTE,
        **dict.fromkeys(
            ["GLOBAL_SETTINGS_CONTEXT", "refresh_global_settings_context", "root_settings_context"],
            _CONTEXT,
        ),
    },
    "names of headrace.exceptions": {
        **dict.fromkeys(
            [
                "BlockMissingCapabilities",
                "InfrastructureError",
                "InfrastructureNotAvailable",
                "InfrastructureNotFound",
                "InvalidRepositoryURLError",
                "ProtectedBlockError",
            ],
            _LATER,
        ),
        **dict.fromkeys(
            ["ExternalSignal", "HeadraceImportError", "HeadraceSignal", "exception_traceback"],
            _INSIDE,
        ),
        **dict.fromkeys(
            ["FlowRunWatchError", "ObjectUnsupported", "ProfileSettingsValidationError"],
            _ERRORS,
        ),
        "HeadraceHTTPStatusError": _HTTP,
        "ObjectLimitReached": _LIMITS,
    },
    "names of headrace.flows": {
        "FlowStateHook": _TYPES,
        **dict.fromkeys(
            ["InfrastructureBoundFlow", "bind_flow_to_infrastructure"],
            _LATER,
        ),
        **dict.fromkeys(
            [
                "is_entrypoint_async",
                "load_flow_arguments_from_entrypoint",
                "load_flow_from_flow_run",
                "load_function_and_convert_to_flow",
                "load_placeholder_flow",
                "safe_load_flow_from_entrypoint",
                "select_flow",
            ],
            _LOADING,
        ),
    },
    "names of headrace.futures": {
        **dict.fromkeys(
            ["HeadraceConcurrentFuture", "HeadraceTaskRunFuture", "HeadraceWrappedFuture"],
            _LOCAL,
        ),
        "HeadraceFlowRunFuture": _LATER,
    },
    "names of headrace.input": {
        **dict.fromkeys(
            [
                "Keyset",
                "acreate_flow_run_input",
                "acreate_flow_run_input_from_model",
                "create_flow_run_input_from_model",
                "keyset_from_base_key",
                "keyset_from_paused_state",
            ],
            _INPUTS,
        ),
    },
    "names of headrace.logging": {
        "LogEavesdropper": _INSIDE,
    },
    "names of headrace.runtime.deployment": {
        **dict.fromkeys(
            ["get_flow_run_id", "get_id", "get_name", "get_parameters", "get_version"],
            _ASKED,
        ),
    },
    "names of headrace.runtime.flow_run": {
        **dict.fromkeys(
            [
                "get_flow_name",
                "get_flow_run_api_url",
                "get_flow_run_ui_url",
                "get_flow_version",
                "get_id",
                "get_job_variables",
                "get_name",
                "get_parameters",
                "get_parent_deployment_id",
                "get_parent_flow_run_id",
                "get_root_flow_run_id",
                "get_run_count",
                "get_scheduled_start_time",
                "get_tags",
            ],
            _ASKED,
        ),
    },
    "names of headrace.runtime.task_run": {
        **dict.fromkeys(
            [
                "get_id",
                "get_name",
                "get_parameters",
                "get_run_count",
                "get_tags",
                "get_task_name",
                "get_task_run_api_url",
                "get_task_run_ui_url",
            ],
            _ASKED,
        ),
    },
    "names of headrace.serializers": {
        **dict.fromkeys(
            ["UnknownSerializer", "headrace_json_object_decoder", "headrace_json_object_encoder"],
            _INSIDE,
        ),
    },
    "names of headrace.states": {
        **dict.fromkeys(
            [
                "exception_to_crashed_state",
                "exception_to_failed_state",
                "format_exception",
                "get_state_result",
                "return_value_to_state",
                "to_state_create",
            ],
            _STATES,
        ),
    },
    "names of headrace.task_runners": {
        "HeadraceTaskRunner": _INSIDE,
    },
    "names of headrace.task_worker": {
        **dict.fromkeys(
            [
                "StopTaskWorker",
                "TaskWorker",
                "create_status_server",
                "read_parameters",
                "should_try_to_read_parameters",
                "store_parameters",
            ],
            _INSIDE,
        ),
    },
    "names of headrace.tasks": {
        "TaskRunNameCallbackWithParameters": _TYPES,
    },
    "names of headrace.testing.utilities": {
        **dict.fromkeys(
            [
                "a_test_step",
                "assert_blocks_equal",
                "assert_uses_result_serializer",
                "assert_uses_result_storage",
                "b_test_step",
                "exceptions_equal",
                "kubernetes_environments_equal",
            ],
            _TESTS,
        ),
    },
    "names of headrace.utilities.annotations": {
        **dict.fromkeys(
            ["NotSet", "freeze"],
            _INSIDE,
        ),
        "Quote": _SUBSTITUTE,
    },
    "keywords of headrace.context.hydrated_context": {
        "client": _CLIENT,
    },
    "keywords of headrace.context.serialize_context": {
        "asset_ctx_kwargs": _INSIDE,
    },
    "keywords of headrace.context.use_profile": {
        **dict.fromkeys(
            ["include_current_context", "override_environment_variables"],
            _CONTEXT,
        ),
    },
    "keywords of headrace.flows.Flow.adeploy": {
        **dict.fromkeys(
            ["sla", "triggers"],
            _LATER,
        ),
        "version_type": _INSIDE,
    },
    "keywords of headrace.flows.Flow.deploy": {
        **dict.fromkeys(
            ["sla", "triggers"],
            _LATER,
        ),
        "version_type": _INSIDE,
    },
    "keywords of headrace.flows.Flow.serve": {
        "triggers": _LATER,
    },
    "keywords of headrace.flows.Flow.to_deployment": {
        **dict.fromkeys(
            ["sla", "triggers"],
            _LATER,
        ),
        "version_type": _INSIDE,
    },
    "keywords of headrace.flows.load_flow_from_entrypoint": {
        "use_placeholder_flow": _LOADING,
    },
    "keywords of headrace.get_client": {
        "httpx_settings": _CLIENT,
    },
    "keywords of headrace.input.adelete_flow_run_input": {
        "client": _CLIENT,
    },
    "keywords of headrace.input.afilter_flow_run_input": {
        "client": _CLIENT,
    },
    "keywords of headrace.input.aread_flow_run_input": {
        "client": _CLIENT,
    },
    "keywords of headrace.results.ResultStore": {
        "cache": _CACHE,
        "storage_key_fn": _INSIDE,
    },
    "keywords of headrace.states.State": {
        **dict.fromkeys(
            ["created", "updated"],
            _PYDANTIC,
        ),
    },
    "keywords of headrace.task_runners.ProcessPoolTaskRunner": {
        "subprocess_message_processor_factories": _INSIDE,
    },
    "members of headrace.assets.Asset": {
        **dict.fromkeys(
            ["model_validate_list", "reset_fields"],
            _PYDANTIC,
        ),
    },
    "members of headrace.assets.AssetProperties": {
        **dict.fromkeys(
            ["model_validate_list", "reset_fields"],
            _PYDANTIC,
        ),
    },
    "members of headrace.context.FlowRunContext": {
        "client": _CLIENT,
        **dict.fromkeys(
            [
                "detached",
                "events",
                "flow_run_suspension_request",
                "observed_flow_pauses",
                "run_results",
                "serialize",
                "task_run_assets",
                "task_run_dynamic_keys",
            ],
            _INSIDE,
        ),
        "input_keyset": _INPUTS,
    },
    "members of headrace.context.TagsContext": {
        "serialize": _INSIDE,
    },
    "members of headrace.context.TaskRunContext": {
        "client": _CLIENT,
        "input_keyset": _INPUTS,
        "serialize": _INSIDE,
    },
    "members of headrace.flows.Flow": {
        **dict.fromkeys(
            ["isclassmethod", "ismethod", "isstaticmethod"],
            _FORM,
        ),
        "serialize_parameters": _INSIDE,
    },
    "members of headrace.futures.HeadraceDistributedFuture": {
        **dict.fromkeys(
            ["done_callbacks", "waiter"],
            _INSIDE,
        ),
    },
    "members of headrace.input.RunInput": {
        **dict.fromkeys(
            [
                "asave",
                "keyset_from_type",
                "load_from_flow_run_input",
                "save",
                "subclass_from_base_model_type",
            ],
            _INPUTS,
        ),
    },
    "members of headrace.results.ResultStore": {
        **dict.fromkeys(
            ["aupdate_for_flow", "aupdate_for_task"],
            _ASYNC,
        ),
        **dict.fromkeys(
            ["await_for_lock", "generate_default_holder", "storage_key_fn"],
            _INSIDE,
        ),
        "cache": _CACHE,
        "result_storage_block_id": _LATER,
    },
    "members of headrace.states.State": {
        **dict.fromkeys(
            ["created", "model_validate_list", "reset_fields", "updated"],
            _PYDANTIC,
        ),
        **dict.fromkeys(
            ["default_name_from_type", "default_scheduled_start_time", "set_unpersisted_results_to_none"],
            _STATES,
        ),
    },
    "members of headrace.task_runners.ProcessPoolTaskRunner": {
        **dict.fromkeys(
            ["set_subprocess_message_processor_factories", "subprocess_message_processor_factories"],
            _INSIDE,
        ),
    },
    "members of headrace.tasks.MaterializingTask": {
        **dict.fromkeys(
            ["create_local_run", "create_run"],
            _INSIDE,
        ),
        **dict.fromkeys(
            ["isclassmethod", "ismethod", "isstaticmethod"],
            _FORM,
        ),
    },
    "members of headrace.tasks.Task": {
        **dict.fromkeys(
            ["create_local_run", "create_run"],
            _INSIDE,
        ),
        **dict.fromkeys(
            ["isclassmethod", "ismethod", "isstaticmethod"],
            _FORM,
        ),
    },
    "members of headrace.transactions.AsyncTransaction": {
        **dict.fromkeys(
            [
                "add_child",
                "get_active",
                "get_parent",
                "on_commit_hooks",
                "on_rollback_hooks",
                "prepare_transaction",
                "reset",
                "run_hook",
                "serialize",
            ],
            _INSIDE,
        ),
    },
    "members of headrace.transactions.Transaction": {
        **dict.fromkeys(
            [
                "add_child",
                "get_active",
                "get_parent",
                "on_commit_hooks",
                "on_rollback_hooks",
                "prepare_transaction",
                "reset",
                "run_hook",
                "serialize",
            ],
            _INSIDE,
        ),
    },
}

OTHER_DEFAULTS: Final[dict[str, list[object]]] = {
    # Of the class; the decorator's is None there, too.
    "headrace.tasks.Task log_prints": [False, None],
    "headrace.testing.utilities.headrace_test_harness server_startup_timeout": [30, 30.0],
}
"""Theirs and ours, by the path of the function and the keyword."""
