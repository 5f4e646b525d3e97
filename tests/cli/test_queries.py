"""Queries, watching and deleting, against a real server with runs that `headrace run` has recorded."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from headrace.cli import main
from headrace.cli.launch import iter_commands
from tests.cli.conftest import Answer
from tests.cli.test_help import HEAVY
from tests.support.servers import ServerProcess, run_headrace

FLOWS = """
import pathlib
import time
from headrace import flow, get_run_logger, task

@task
def square(n: int) -> int:
    get_run_logger().info("squaring %d", n)
    if n < 0:
        raise ValueError("no negative numbers")
    return n * n

@task
def total(parts: list[int]) -> int:
    return sum(parts)

@flow
def inner(n: int) -> int:
    get_run_logger().warning("inside")
    return square(n)

@flow
def outer(n: int) -> int:
    get_run_logger().info("outside")
    return total([square.submit(1), inner(n)])

@flow
def waits(gate: str) -> None:
    get_run_logger().info("waiting")
    while not pathlib.Path(gate).exists():
        time.sleep(0.02)
    get_run_logger().info("gone on")
"""

Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that has seen a run that completed, one that failed, and two with one name."""
    folder = tmp_path_factory.mktemp("filled")
    (folder / "shop.py").write_text(FLOWS)
    with ServerProcess(folder / "server") as server:
        for words in (
            ["shop.py:outer", "-p", "n=3", "--name", "good", "--tag", "a", "--tag", "b"],
            ["shop.py:inner", "-p", "n=-1", "--name", "bad", "--tag", "a"],
            ["shop.py:inner", "-p", "n=1", "--name", "twin"],
            ["shop.py:inner", "-p", "n=2", "--name", "twin"],
        ):
            done = run_headrace("run", *words, environment=server.environment, cwd=folder)
            assert done.returncode == (1 if "bad" in words else 0), done.stderr
        yield server


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that has seen nothing."""
    with ServerProcess(tmp_path_factory.mktemp("bare") / "server") as server:
        yield server


@pytest.fixture
def ask_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[ServerProcess], Ask]:
    """Runs commands in this process, with a server's home."""

    def of(server: ServerProcess) -> Ask:
        def ask(*words: str) -> Answer:
            with pytest.MonkeyPatch.context() as patch:
                for name in [n for n in os.environ if n.startswith("HEADRACE_")]:
                    patch.delenv(name)
                patch.setenv("HEADRACE_HOME", str(server.home))
                patch.setattr("headrace.settings._process", None)
                capsys.readouterr()
                code = main(list(words))
                shown = capsys.readouterr()
            return Answer(int(code), shown.out, shown.err)

        return ask

    return of


@pytest.fixture
def ask(filled: ServerProcess, ask_of: Callable[[ServerProcess], Ask]) -> Ask:
    """Runs commands against the server with runs."""
    return ask_of(filled)


def _json(answer: Answer) -> Any:
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


# What each command needs to be called; a run that does not exist is answered by exit code 3.
ARGUMENTS: dict[str, list[str] | None] = {
    "run": None,
    "flow-run ls": [],
    "flow-run inspect": ["good"],
    "flow-run watch": ["good"],
    "flow-run logs": ["good"],
    "flow-run states": ["good"],
    "flow-run graph": ["good"],
    "flow-run spans": ["good"],
    "flow-run resume": None,
    "flow-run suspend": None,
    "flow-run delete": None,
    "task-run ls": [],
    "task-run inspect": ["A SQUARE"],
    "task-run logs": ["A SQUARE"],
    "flow ls": [],
    "flow inspect": ["outer"],
    "flow delete": None,
    "config view": [],
    "config set": None,
    "config unset": None,
    "config validate": [],
    "profile ls": [],
    "profile create": None,
    "profile use": ["default"],
    "profile inspect": [],
    "profile rename": None,
    "profile delete": None,
    "spool ls": [],
    "spool flush": [],
    "version": [],
    "cache invalidate": None,
    "cache ls": [],
    "lock ls": [],
    "lock release": None,
    "schedule upcoming": [],
    "backfill cancel": None,
    "backfill inspect": None,
    "backfill ls": [],
    "backfill pause": None,
    "backfill resume": None,
    "backfill runs": None,
    "deployment backfill": None,
    "completion install": None,
    "completion show": None,
    "deploy": None,
    "deployment apply": None,
    "deployment delete": None,
    "deployment inspect": None,
    "deployment ls": [],
    "deployment pause": None,
    "deployment resume": None,
    "deployment rollback": None,
    "deployment run": None,
    "deployment versions": None,
    "dev": None,
    "diff": None,
    "fairness-rule ls": [],
    "fairness-rule set": None,
    "fairness-rule unset": None,
    "flow serve": None,
    "flow-run cancel": None,
    "flow-run execute": None,
    "flow-run explain": ["good"],
    "flow-run pause": None,
    "flow-run reschedule": None,
    "flow-run retry": None,
    "git-sync ls": [],
    "git-sync start": None,
    "init": None,
    "schedule backfill": None,
    "schedule create": None,
    "schedule delete": None,
    "schedule inspect": None,
    "schedule ls": [],
    "schedule pause": None,
    "schedule preview": None,
    "schedule resume": None,
    "schedule skip": None,
    "schedule trigger": None,
    "schedule unskip": None,
    "task serve": None,
    "work-pool clear-concurrency-limit": None,
    "work-pool create": None,
    "work-pool delete": None,
    "work-pool get-default-base-job-template": None,
    "work-pool inspect": None,
    "work-pool ls": [],
    "work-pool pause": None,
    "work-pool preview": None,
    "work-pool resume": None,
    "work-pool set-concurrency-limit": None,
    "work-pool update": None,
    "work-queue clear-concurrency-limit": None,
    "work-queue create": None,
    "work-queue delete": None,
    "work-queue inspect": None,
    "work-queue ls": [],
    "work-queue pause": None,
    "work-queue resume": None,
    "work-queue set-concurrency-limit": None,
    "work-queue update": None,
}
"""None: the command changes something or starts something, and has a test of its own."""


def test_every_command_is_asked() -> None:
    assert set(ARGUMENTS) == {words for words, _ in iter_commands()}


# What this server has none of.
HAS_NONE = {
    "cache ls",
    "git-sync ls",
    "lock ls",
    "schedule upcoming",
    "flow-run spans",
    "spool ls",
    "spool flush",
    "profile inspect",
}
HAS_NONE |= {
    f"{noun} ls"
    for noun in ("backfill", "deployment", "fairness-rule", "schedule", "work-pool", "work-queue")
}
ASKED = [(words, given) for words, given in ARGUMENTS.items() if given is not None]


@pytest.mark.parametrize(("words", "given"), ASKED, ids=[words for words, _ in ASKED])
@pytest.mark.parametrize("output", ["json", "jsonl"])
def test_json_of_every_command_on_a_full_server(words: str, given: list[str], output: str, ask: Ask) -> None:
    given = [_task_run(ask, "square") if word == "A SQUARE" else word for word in given]
    code, out, _ = ask(*words.split(), *given, "-o", output)
    assert code == 0
    documents = [json.loads(out)] if output == "json" else [json.loads(line) for line in out.splitlines()]
    assert documents or words in HAS_NONE
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", out)


@pytest.mark.parametrize(("words", "given"), ASKED, ids=[words for words, _ in ASKED])
def test_json_of_every_command_on_an_empty_server(
    words: str, given: list[str], bare: ServerProcess, ask_of: Callable[[ServerProcess], Ask]
) -> None:
    code, out, err = ask_of(bare)(*words.split(), *given, "-o", "json")
    if given and words != "profile use":
        assert (code, out) == (3, "")
        assert err.startswith("Error: There is no ")
        assert err.count("\n") == 1
    else:
        assert code == 0
        if words.endswith(" ls") and words != "profile ls":
            assert json.loads(out) == []


@pytest.mark.parametrize(("words", "given"), ASKED, ids=[words for words, _ in ASKED])
def test_piped_text_has_no_control_codes(words: str, given: list[str], ask: Ask) -> None:
    given = [_task_run(ask, "square") if word == "A SQUARE" else word for word in given]
    code, out, err = ask(*words.split(), *given)
    assert code == 0
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", out + err)


def _task_run(ask: Ask, task: str) -> str:
    return str(_json(ask("task-run", "ls", "--task-name", task, "-o", "json"))[0]["id"])


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["twin", "twin", "bad", "inner", "good"]),
        (["--top-level"], ["twin", "twin", "bad", "good"]),
        (["--flow-name", "outer"], ["good"]),
        (["--flow-name", "outer", "--flow-name", "inner", "--top-level"], ["twin", "twin", "bad", "good"]),
        (["--state", "failed"], ["bad"]),
        (["--state", "Completed", "--top-level"], ["twin", "twin", "good"]),
        (["--state-type", "FAILED"], ["bad"]),
        (["--state-type", "failed", "--state-type", "crashed"], ["bad"]),
        (["--tag", "a", "--top-level"], ["bad", "good"]),
        (["--tag", "a", "--tag", "b", "--top-level"], ["good"]),
        (["--name", "oo", "--top-level"], ["good"]),
        (["--since", "1h", "--top-level"], ["twin", "twin", "bad", "good"]),
        (["--since", "2100-01-01T00:00"], []),
        (["--limit", "1"], ["twin"]),
        (["--limit", "0", "--top-level"], ["twin", "twin", "bad", "good"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_filters_of_flow_runs(options: list[str], names: list[str], ask: Ask) -> None:
    found = [run["name"] for run in _json(ask("flow-run", "ls", *options, "-o", "json"))]
    # The subflow run of `good` has a name of its own making.
    assert ["inner" if name not in ("twin", "bad", "good") else name for name in found] == names


def test_the_table_and_the_ids(ask: Ask) -> None:
    out = ask("flow-run", "ls", "--top-level").out.splitlines()
    assert out[0].split() == ["ID", "FLOW", "NAME", "STATE", "STARTED", "DURATION"]
    assert len(out) == 5
    ids = ask("flow-runs", "ls", "--top-level", "-q").out.split()
    assert [line.split()[0] for line in out[1:]] == ids
    assert all(len(run_id) == 36 for run_id in ids)


def test_nothing_found_says_so_and_asks_what_was_meant(ask: Ask) -> None:
    code, out, err = ask("flow-run", "ls", "--state", "Complted")
    assert (code, out) == (0, "")
    assert err == "No flow runs.\nDid you mean 'Completed'?\n"


def test_a_run_by_id_by_prefix_and_by_name(ask: Ask) -> None:
    run_id = ask("flow-run", "ls", "--name", "good", "-q").out.strip()
    for text in (run_id, run_id.upper(), run_id[:-3], "good"):
        assert _json(ask("flow-run", "inspect", text, "-o", "json"))["id"] == run_id


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["flow-run", "inspect", "goood"], 3, "There is no flow run 'goood'. Did you mean 'good'?"),
        (["flow-run", "inspect", "0" * 8 + "-0000-7000-8000-" + "0" * 12], 3, "There is no run"),
        (["flow-run", "inspect", "twin"], 2, "'twin' means more than one flow run: "),
        (["flow-run", "inspect", "01"], 3, "There is no flow run '01'."),
        (["flow", "inspect", "ouetr"], 3, "There is no flow 'ouetr'. Did you mean 'outer'?"),
        (["task-run", "ls", "--flow-run", "goood"], 3, "Did you mean 'good'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_there_is_told_in_one_line(words: list[str], code: int, said: str, ask: Ask) -> None:
    answer = ask(*words, "-o", "json")
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_a_task_run_is_not_a_flow_run(ask: Ask) -> None:
    task_run = _task_run(ask, "total")
    code, _, err = ask("flow-run", "inspect", task_run)
    assert code == 3
    assert f"{task_run} is a task run, not a flow run. See `headrace task-run inspect {task_run}`." in err


def test_inspect_for_people(ask: Ask) -> None:
    out = ask("flow-run", "inspect", "bad").out
    assert re.search(r"^State +Failed$", out, re.M)
    assert re.search(r"^Error +Traceback", out, re.M)
    assert '"n": -1' in out


def test_states_in_order(ask: Ask) -> None:
    found = _json(ask("flow-run", "states", "good", "-o", "json"))
    assert [state["type"] for state in found][-2:] == ["RUNNING", "COMPLETED"]
    assert all(state["record_time"].endswith("Z") for state in found)


def test_logs_of_a_run_and_of_those_below_it(ask: Ask) -> None:
    def messages(*options: str) -> list[str]:
        return [line["message"] for line in _json(ask("flow-run", "logs", *options, "-o", "json"))]

    everything = messages("good")
    assert {"outside", "inside", "squaring 1", "squaring 3"} <= set(everything)
    assert messages("good", "-r") == everything[::-1]
    assert messages("good", "--head", "2") == everything[:2]
    assert messages("good", "--tail", "2") == everything[-2:]
    assert messages("good", "--level", "warning") == ["inside"]
    assert messages("good", "--contains", "squaring") == ["squaring 1", "squaring 3"]
    assert "squaring 1" not in messages("good", "--own-only")
    below = ask("flow-run", "ls", "--flow-name", "inner", "--tag", "a", "-o", "json")
    subflow = next(run["id"] for run in _json(below) if run["parent_run_id"])
    assert set(messages(subflow)) & {"outside", "squaring 1"} == set()
    assert {"inside", "squaring 3"} <= set(messages(subflow))


def test_log_lines_for_people(ask: Ask) -> None:
    out = ask("flow-run", "logs", "good", "--contains", "outside").out
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \| INFO     \| good - outside\n", out)


def test_following_the_logs_of_a_run_that_has_ended(ask: Ask) -> None:
    followed = ask("flow-run", "logs", "good", "-f", "-o", "jsonl")
    assert followed.code == 0
    assert followed.out == ask("flow-run", "logs", "good", "-o", "jsonl").out


def test_the_graph(ask: Ask) -> None:
    lines = ask("flow-run", "graph", "good", "--edges").out.splitlines()
    assert re.match(r"✔ outer · good Completed", lines[0])
    assert sum(line.startswith(("├─ ", "└─ ")) for line in lines) == 3
    assert sum(line.startswith(("│  ", "   ")) for line in lines) == 1
    assert any(re.fullmatch(r"square-\S+ -> total-\S+ \(parts\)", line) for line in lines)
    dot = ask("flow-run", "graph", "good", "--dot").out
    assert dot.startswith("digraph runs {")
    assert dot.count("->") >= 5
    nodes = _json(ask("flow-run", "graph", "good", "-o", "json"))["nodes"]
    assert len(nodes) == 5
    code, _, err = ask("flow-run", "graph", "good", "--max-nodes", "2")
    assert code == 0
    assert "There are more than 2 runs" in err


def test_a_flow_and_its_counts(ask: Ask) -> None:
    found = _json(ask("flow", "inspect", "inner", "-o", "json"))
    assert found["run_counts"] == {"COMPLETED": 3, "FAILED": 1}
    assert [flow["name"] for flow in _json(ask("flow", "ls", "-o", "json"))] == ["inner", "outer"]


def test_the_version_shows_both_sides(ask: Ask) -> None:
    found = _json(ask("version", "-o", "json"))
    assert found["client"]["version"] == found["server"]["version"]
    assert found["server"]["database"] == "sqlite"
    assert found["server_error"] is None


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("flow-run inspect", {"good", "bad", "twin"}),
        ("flow-run ls --flow-name", {"inner", "outer"}),
        ("flow inspect", {"inner", "outer"}),
    ],
)
def test_names_for_the_shell(words: str, offered: set[str], ask: Ask) -> None:
    assert offered <= set(ask("__complete", *words.split(), "").out.split())


def test_watching_what_has_ended(ask: Ask) -> None:
    assert ask("flow-run", "watch", "good").code == 0
    assert ask("flow-run", "watch", "bad").code == 1
    document = ask("flow-run", "watch", "bad", "-o", "json")
    assert json.loads(document.out)["state"]["type"] == "FAILED"


def test_a_query_loads_no_sql_and_no_rich(filled: ServerProcess) -> None:
    script = (
        "import sys\nfrom headrace.cli import main\n"
        "main(['flow-run', 'ls', '-o', 'json'])\n"
        "print('LOADED', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=filled.environment, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split()[1:])
    assert loaded.isdisjoint(HEAVY | {"rich", "headrace_services"})


@pytest.fixture
def waiting(filled: ServerProcess, tmp_path: pathlib.Path, ask: Ask) -> Iterator[tuple[str, pathlib.Path]]:
    """A flow run that waits for a file: its id and the file."""
    gate = tmp_path / "gate"
    folder = filled.home.parent
    command = [
        sys.executable,
        "-m",
        "headrace",
        "run",
        "shop.py:waits",
        "-p",
        f"gate={gate}",
        "--name",
        "slow",
    ]
    with subprocess.Popen(
        command, cwd=folder, env=filled.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"waiting" in line:
                break
        run_id = ""
        while not run_id:
            run_id = ask("flow-run", "ls", "--name", "slow", "--state-type", "RUNNING", "-q").out.strip()
        yield run_id, gate
        gate.touch()
        process.communicate(timeout=60)
    ask("flow-run", "delete", run_id, "-y")


def test_a_watch_gives_up_after_its_timeout(waiting: tuple[str, pathlib.Path], ask: Ask) -> None:
    code, _, err = ask("flow-run", "watch", waiting[0], "--timeout", "0.3")
    assert code == 124
    assert f"It goes on: `headrace flow-run watch {waiting[0]}`." in err


@pytest.mark.parametrize("words", [["watch"], ["logs", "-f"]], ids=" ".join)
def test_following_a_run_to_its_end(
    words: list[str], waiting: tuple[str, pathlib.Path], filled: ServerProcess
) -> None:
    run_id, gate = waiting
    command = [sys.executable, "-m", "headrace", "flow-run", words[0], run_id, *words[1:]]
    with subprocess.Popen(
        command, env=filled.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        gate.touch()
        rest, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    if words == ["watch"]:
        assert first.endswith("Flow run 'slow' - Running\n")
        assert re.search(r"Flow run 'slow' - Completed after ", rest)
    else:
        assert "gone on" in rest


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["watch"], "No longer watching the flow run slow ({run_id}); it goes on.\n"),
        (["logs", "--follow"], ""),
    ],
    ids=["watch", "logs"],
)
def test_ctrl_c_in_a_watch_leaves_the_run_alone(
    waiting: tuple[str, pathlib.Path], filled: ServerProcess, ask: Ask, words: list[str], said: str
) -> None:
    run_id, _ = waiting
    with subprocess.Popen(
        [sys.executable, "-m", "headrace", "flow-run", *words, run_id],
        env=filled.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == said.format(run_id=run_id)
    assert _json(ask("flow-run", "inspect", run_id, "-o", "json"))["state"]["type"] == "RUNNING"


def test_a_run_that_is_running_is_not_deleted_unless_forced(
    waiting: tuple[str, pathlib.Path], ask: Ask
) -> None:
    code, _, err = ask("flow-run", "delete", waiting[0], "-y")
    assert code == 1
    assert "force" in err


def test_a_delete_asks_and_is_refused_where_nobody_answers(filled: ServerProcess, ask: Ask) -> None:
    folder = filled.home.parent
    for name in ("gone-1", "gone-2"):
        words = ["run", "shop.py:inner", "-p", "n=5", "--name", name]
        assert run_headrace(*words, environment=filled.environment, cwd=folder).returncode == 0
    code, out, err = ask("flow-run", "delete", "gone-1", "gone-2")
    assert (code, out) == (2, "")
    assert "gone-1" in err
    assert "--yes" in err
    assert _json(ask("flow-run", "ls", "--name", "gone", "-o", "json"))
    deleted = _json(ask("flow-run", "delete", "gone-1", "gone-2", "-y", "-o", "json"))
    assert [(d["name"], d["deleted_runs"]) for d in deleted] == [("gone-1", 2), ("gone-2", 2)]
    assert _json(ask("flow-run", "ls", "--name", "gone", "-o", "json")) == []


def test_a_flow_is_deleted_with_its_runs(filled: ServerProcess, ask: Ask) -> None:
    folder = filled.home.parent
    (folder / "brief.py").write_text("from headrace import flow\n@flow\ndef brief(): ...\n")
    run_headrace("run", "brief.py", environment=filled.environment, cwd=folder)
    assert ask("flow", "delete", "brief").code == 2
    deleted = _json(ask("flow", "delete", "brief", "-y", "-o", "json"))
    assert deleted[0]["deleted_runs"] == 1
    assert ask("flow", "inspect", "brief").code == 3


@pytest.mark.parametrize(
    "words", [["flow-run", "ls"], ["flow-run", "watch", "x"], ["flow", "delete", "x", "-y"]], ids=" ".join
)
def test_a_server_that_does_not_answer_is_one_line(words: list[str], tmp_path: pathlib.Path) -> None:
    environment = {**os.environ, "HEADRACE_HOME": str(tmp_path), "HEADRACE_API_URL": "127.0.0.1:1"}
    done = run_headrace(*words, environment=environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: The server at 127.0.0.1:1 does not answer.")
    assert done.stderr.count("\n") == 1
