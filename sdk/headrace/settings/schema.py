"""The settings there are: names, types, defaults, and what each is for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.core import config
from headrace.core.config import Option, option
from headrace.core.errors import ConfigurationError

__all__ = ["ENV_PREFIX", "OPTIONS", "Settings", "canonical_name", "suggestion", "variable_name"]

ENV_PREFIX = "HEADRACE_"
_MIB = 1024 * 1024
_ADDRESS = re.compile(r"(?:(?:http|grpc)://)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):(\d{1,5})/?")


def _parse_api_url(raw: Any) -> str:
    word = str(raw).strip()
    if word.lower() in {"auto", "off"}:
        return word.lower()
    match = _ADDRESS.fullmatch(word)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ValueError
    return f"{match[1]}:{match[2]}"


_api_url: config.Form[str] = config.Form(
    "auto, off, or an address with its port such as localhost:4200 (http:// or grpc:// may stand before it)",
    _parse_api_url,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force. Immutable; `get_current_settings()` gives the present ones."""

    home: Path = option(
        Path("~/.headrace"), config.path, "Folder of this user's server, spool, profiles and results."
    )
    api_url: str = option(
        "auto",
        _api_url,
        "Where runs are recorded and asked for: auto (the server of this home, else its spool), "
        "off (runs are recorded nowhere), or an address such as localhost:4200.",
    )
    api_auth_string: str | None = option(
        None, config.optional(config.text), "Credentials for the server: user:password.", secret=True
    )
    api_request_timeout_seconds: float = option(
        60.0,
        config.number(0.001),
        "How long one call to the server may take, its retries included, in seconds.",
        peer="API_REQUEST_TIMEOUT",
    )
    api_connect_timeout_seconds: float = option(
        10.0,
        config.number(0.001),
        "How long a flow run waits at its start for the server at an explicit address, in seconds.",
    )
    api_offline: str = option(
        "error",
        config.choice("error", "allow"),
        "When the server at an explicit address does not answer as a flow run starts: error, or allow "
        "(run, keep the records in the spool, send them when it answers).",
    )
    recorder_spool_budget_bytes: int = option(
        256 * _MIB,
        config.integer(_MIB),
        "How much the spool of one process may hold, in bytes. Spans, then logs, are left out above it.",
    )
    recorder_on_full: str = option(
        "block",
        config.choice("block", "raise"),
        "When the spool is full of states, or its disk is: block until there is room, or raise.",
    )
    recorder_exit_timeout_seconds: float = option(
        10.0,
        config.number(0),
        "How long the end of the program waits for the server to take the last records, in seconds. "
        "What is left stays in the spool.",
    )
    logging_level: str = option("INFO", config.text, "Least level of log lines: a name or a number.")
    logging_log_prints: bool = option(False, config.boolean, "Whether print() in runs becomes log lines.")
    logging_extra_loggers: tuple[str, ...] = option(
        (), config.word_list, "Further loggers whose lines are recorded with the run."
    )
    logging_to_api_enabled: bool = option(True, config.boolean, "Whether log lines of runs are recorded.")
    logging_to_api_when_missing_flow: str = option(
        "warn",
        config.choice("warn", "error", "ignore"),
        "What a line sent to the server outside of a run does.",
    )
    logging_to_api_max_log_size: int = option(
        32 * 1024, config.integer(1, 32 * 1024), "A longer log message is cut, in bytes."
    )
    logging_colors: bool = option(True, config.boolean, "Whether log lines on a terminal have colours.")
    logging_config_path: Path | None = option(
        None, config.optional(config.path), "A logging configuration to use instead of the built-in one."
    )
    tasks_default_retries: int = option(0, config.integer(0), "Retries of a task that does not say.")
    tasks_default_retry_delay_seconds: float | tuple[float, ...] = option(
        0.0, config.duration_list, "Seconds before each retry of a task that does not say."
    )
    tasks_default_no_cache: bool = option(
        False, config.boolean, "Whether tasks that do not say are never cached."
    )
    tasks_disable_caching: bool = option(
        False, config.boolean, "Whether no task uses the result of an earlier call, whatever it says."
    )
    tasks_refresh_cache: bool = option(
        False,
        config.boolean,
        "Whether cached tasks that do not say run in any case, renewing their results.",
    )
    tasks_default_persist_result: bool | None = option(
        None,
        config.optional(config.boolean),
        "Whether results of tasks that do not say are kept in storage; nothing: as the calling run does.",
    )
    tasks_runner_thread_pool_max_workers: int | None = option(
        None, config.optional(config.integer(1)), "Threads of a thread pool task runner; nothing: no bound."
    )
    tasks_runner_process_pool_max_workers: int | None = option(
        None,
        config.optional(config.integer(1)),
        "Processes of a process pool task runner; nothing: as many as there are processors.",
    )
    worker_cgroup: str | None = option(
        None,
        config.optional(config.text),
        "Control group below which a process worker gives each run one of its own, such as headrace: the "
        "caps on memory and processes then hold for a run with everything it starts. Linux only.",
    )
    flows_default_retries: int = option(0, config.integer(0), "Retries of a flow that does not say.")
    flows_default_retry_delay_seconds: float = option(
        0.0, config.number(0), "Seconds before each retry of a flow that does not say."
    )
    flows_default_durable: bool = option(
        False,
        config.boolean,
        "Whether flows that do not say are durable: completed steps are not run again with the body.",
    )
    results_persist_by_default: bool = option(
        False, config.boolean, "Whether results of runs that do not say are kept in storage."
    )
    results_default_serializer: str = option(
        "pickle", config.text, "What results are written with, such as pickle, json or compressed/pickle."
    )
    results_default_storage_block: str | None = option(
        None,
        config.optional(config.text),
        "Where results are kept: a path, memory, or a URL such as s3://bucket/prefix; nothing: in the folder "
        "of the next setting.",
    )
    results_local_storage_path: Path | None = option(
        None,
        config.optional(config.path),
        "Folder for results on this machine; nothing: storage in the home folder.",
    )
    traces_exporter: str = option(
        "none",
        config.choice("none", "server", "otlp", "global"),
        "Where spans of runs go: none, server (recorded with the run), otlp (as OTEL_EXPORTER_OTLP_* says), "
        "global (the program's own OpenTelemetry provider).",
    )
    cli_colors: bool = option(True, config.boolean, "Whether commands colour what they show on a terminal.")
    cli_prompt: bool = option(
        True, config.boolean, "Whether commands may ask on a terminal; if not, what would ask is refused."
    )
    flow_run_execute_sigterm_behavior: str | None = option(
        None,
        config.optional(config.choice("crash", "reschedule", "relinquish")),
        "What becomes of a deployment's run whose process gets SIGTERM: crash, reschedule (another attempt "
        "begins at once), relinquish (left to what has started the process, which starts it again); nothing: "
        "as on_lost of the run says.",
    )
    runner_server_enable: bool = option(
        False, config.boolean, "Whether a process that serves flows answers over HTTP how it is."
    )
    runner_server_host: str = option("127.0.0.1", config.text, "Where it answers.")
    runner_server_port: int = option(
        8080, config.integer(0, 65535), "On which port; 0: any free one, which it says."
    )
    default_work_pool_name: str | None = option(
        None, config.optional(config.text), "Work pool of a deployment that names none."
    )
    deploy_environment: str | None = option(
        None,
        config.optional(config.text),
        "Environment of headrace.yaml that is deployed when none is named, where the file has any.",
    )
    default_docker_build_namespace: str | None = option(
        None,
        config.optional(config.text),
        "Registry, or account at one, of images that are built under a name without a /.",
    )
    debug: bool = option(
        False, config.boolean, "Whether commands show the traceback of an error too.", peer="DEBUG_MODE"
    )

    def get(self, name: str) -> Any:
        """The value of the setting called `name`, as a variable, a key or an attribute.

        Raises:
            ConfigurationError: there is no such setting.
        """
        return getattr(self, canonical_name(name))


OPTIONS: Mapping[str, Option] = config.options_of(Settings)
"""Every setting, in the order of the documentation."""


def canonical_name(name: str) -> str:
    """`api_url` for any of `api_url`, `API_URL`, `HEADRACE_API_URL`.

    Raises:
        ConfigurationError: there is no such setting; the message has the nearest name.
    """
    found = name.lower().removeprefix(ENV_PREFIX.lower())
    if found not in OPTIONS:
        raise ConfigurationError(f"There is no setting {name}.{suggestion(found)}")
    return found


def variable_name(name: str) -> str:
    """The environment variable of a setting: `HEADRACE_API_URL` for `api_url`."""
    return ENV_PREFIX + name.upper()


def suggestion(name: str) -> str:
    """The nearest setting's name as a question, with a space before it; empty when none is near."""
    near = difflib.get_close_matches(name.removeprefix(ENV_PREFIX.lower()), OPTIONS, n=1)
    return f" Did you mean {near[0]}?" if near else ""
