"""`headrace run` without a server: loading, parameters, what is shown, how it ends."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.cli.conftest import Answer, Cli
from tests.support.servers import ServerProcess, run_headrace
from tests.support.terminals import on_a_terminal

Run = Callable[..., subprocess.CompletedProcess[str]]

FLOWS = """
import time
from headrace import flow, task

@task
def square(n: int) -> int:
    if n < 0:
        raise ValueError("no negative numbers")
    return n * n

@flow
def inner(n: int) -> int:
    return square(n)

@flow(log_prints=True)
def outer(n: int, label: str = "x", *, names: list[str] | None = None) -> int:
    print("label is", repr(label), names)
    futures = [square.submit(i) for i in range(12)]
    return inner(n) + sum(f.result() for f in futures)

@flow
async def waits(seconds: float = 0.0) -> str:
    import asyncio
    print("waiting", flush=True)
    await asyncio.sleep(seconds)
    return "done"

def plain() -> None: ...
"""


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "shop.py").write_text(FLOWS)
    (tmp_path / "single.py").write_text(
        "from shop import inner\nfrom headrace import flow\n@flow\ndef only(): ...\n"
    )
    (tmp_path / "broken.py").write_text("import shop\n\ndef f():\n    return 1 / 0\n\nf()\n")
    (tmp_path / "unfinished.py").write_text("def f(:\n")
    (tmp_path / "needs.py").write_text("import not_installed_anywhere\n")
    return tmp_path


@pytest.fixture
def environment(tmp_path: pathlib.Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    return {**kept, "HEADRACE_HOME": str(tmp_path / "home"), "HEADRACE_API_URL": "off"}


@pytest.fixture
def run(folder: pathlib.Path, environment: dict[str, str]) -> Run:
    def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "headrace", "run", *words],
            cwd=folder,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def run_here(cli: Cli, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """`headrace run` in this process, which forgets the user's modules afterwards."""

    def run(*words: str) -> Answer:
        monkeypatch.setenv("HEADRACE_API_URL", "off")
        monkeypatch.chdir(folder)
        path = list(sys.path)
        try:
            return cli("run", *words)
        finally:
            sys.path[:] = path
            for name, module in list(sys.modules.items()):
                if str(getattr(module, "__file__", None)).startswith(str(folder)):
                    del sys.modules[name]

    return run


def test_a_flow_runs_and_says_how_it_went(run: Run) -> None:
    done = run("shop.py:outer", "-p", "n=3")
    assert done.returncode == 0, done.stderr
    assert "label is 'x' None" in done.stdout + done.stderr
    assert re.search(r"Flow run \S+ \(\S{36}\) is Completed after ", done.stderr)
    assert "Task 'square' - 10 runs completed" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_the_exit_code_is_that_of_the_final_state(run: Run) -> None:
    done = run("shop.py:inner", "-p", "n=-1", "-o", "json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["state"]["type"] == "FAILED"


def test_an_async_flow_by_module_with_name_and_tags(run: Run) -> None:
    done = run("shop:waits", "--name", "{braces} kept", "--tag", "b", "--tag", "a", "-o", "jsonl")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["name"] == "{braces} kept"
    assert sorted(found["tags"]) == ["a", "b"]
    assert found["state"]["type"] == "COMPLETED"


@pytest.mark.parametrize(
    ("words", "label"),
    [
        (["-p", "label=01"], "'01'"),
        (["-p", 'label="1"'], "'1'"),
        (["-p", "label=a=b"], "'a=b'"),
        (["-p", "label="], "''"),
        (["--params", '{"label": "from json"}'], "'from json'"),
        (["--params", '{"label": "from json"}', "-p", "label=wins"], "'wins'"),
    ],
)
def test_values_are_json_if_they_parse_else_text(
    run_here: Callable[..., Answer], words: list[str], label: str
) -> None:
    answer = run_here("shop.py:outer", "-p", "n=1", "-p", 'names=["a"]', *words)
    assert f"label is {label} ['a']" in answer.out + answer.err


def test_parameters_from_stdin(run: Run) -> None:
    done = run("shop.py:outer", "--params", "-", stdin='{"n": 2, "label": "piped"}')
    assert "label is 'piped'" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["shop.py:outr"], 3, "There is no flow 'outr' in shop.py. Did you mean 'outer'?"),
        (
            ["shop.py"],
            2,
            "There is more than one flow in shop.py. Name one of its flows: inner, outer, waits.",
        ),
        (["shop.py:square"], 2, "'square' in shop.py is a task, not a flow."),
        (["shop.py:plain"], 2, "'plain' in shop.py is a function, not a flow."),
        (["shp.py:outer"], 3, "shp.py is not there. Did you mean 'shop.py'?"),
        (["shop"], 2, "There is more than one flow in shop."),
        (["single.py:nope"], 3, "There is no flow 'nope' in single.py."),
        (["broken.py"], 1, "broken.py cannot be loaded: ZeroDivisionError: division by zero"),
        (["unfinished.py"], 1, "unfinished.py cannot be loaded: SyntaxError"),
        (["needs.py"], 1, "No module named 'not_installed_anywhere'"),
        (["shop.py:outer"], 2, "n: a value is needed. Give -p n=VALUE."),
        (["shop.py:outer", "-p", "m=1"], 2, "m: there is no such parameter."),
        (["shop.py:outer", "-p", "n=1", "-p", "lable=x"], 2, "Did you mean 'label'?"),
        (["shop.py:outer", "-p", "n=two"], 2, "n: Input should be a valid integer"),
        (["shop.py:outer", "-p", "n"], 2, "'n' is not of the form NAME=VALUE."),
        (["shop.py:outer", "--params", "[1]"], 2, "--params must be a JSON object"),
        (["shop.py:outer", "--params", "{"], 2, "--params is not JSON"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_runs_nothing(
    run_here: Callable[..., Answer], words: list[str], code: int, said: str
) -> None:
    answer = run_here(*words)
    assert answer.code == code, answer.err
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert "Flow run" not in answer.err
    assert "/headrace/cli/" not in answer.err


def test_every_parameter_that_is_wrong_has_a_line(run_here: Callable[..., Answer]) -> None:
    answer = run_here("shop.py:outer", "-p", "n=two", "-p", "label=3", "-p", "names=x")
    assert [line.split(":")[0].strip() for line in answer.err.splitlines()[1:]] == ["n", "label", "names"]


def test_the_only_flow_of_a_file_need_not_be_named(run_here: Callable[..., Answer]) -> None:
    assert run_here("single.py").code == 0


def test_the_frames_of_a_broken_file_are_the_users_own(run_here: Callable[..., Answer]) -> None:
    lines = run_here("broken.py").err.splitlines()
    assert [line.strip() for line in lines if line.strip().startswith("File")] == [
        line.strip() for line in lines if "broken.py" in line and line.strip().startswith("File")
    ]
    assert "return 1 / 0" in "".join(lines)


def test_ctrl_c_ends_the_run_as_crashed(folder: pathlib.Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "headrace", "run", "shop.py:waits", "-p", "seconds=60"]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert re.search(r"Flow run \S+ \(\S{36}\) is Crashed", err)
    assert "KeyboardInterrupt" not in err.splitlines()[-1]


def test_on_a_terminal_the_tree_is_drawn_and_stays(folder: pathlib.Path, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "headrace", "run", "shop.py:outer", "-p", "n=3"]
    shown = on_a_terminal(command, environment, folder)
    assert shown.code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "")
    assert re.search(r"✔ outer · \S+ Completed \d+ms\n", plain)
    assert re.search(r"└─ ✔ square-\S+ Completed|├─ ✔ square x12: 12 Completed", plain)
    assert "\x1b[32m" in shown
    assert plain.rstrip().splitlines()[-1].startswith("Flow run ")


def test_a_run_without_its_server_in_reach_is_shown_as_it_was_recorded(
    folder: pathlib.Path, environment: dict[str, str]
) -> None:
    settings = {
        "HEADRACE_API_URL": "127.0.0.1:1",
        "HEADRACE_API_OFFLINE": "allow",
        "HEADRACE_API_CONNECT_TIMEOUT_SECONDS": "0.1",
        "HEADRACE_RECORDER_EXIT_TIMEOUT_SECONDS": "0",
    }
    words = ["run", "shop.py:inner", "-p", "n=2", "-o", "json"]
    done = run_headrace(*words, environment={**environment, **settings}, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"]["type"] == "COMPLETED"


def test_a_run_that_needs_its_server_says_so(folder: pathlib.Path, environment: dict[str, str]) -> None:
    settings = {"HEADRACE_API_URL": "127.0.0.1:1", "HEADRACE_API_CONNECT_TIMEOUT_SECONDS": "0.1"}
    words = ["run", "shop.py:inner", "-p", "n=2"]
    done = run_headrace(*words, environment={**environment, **settings}, cwd=folder)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Error: The server at 127.0.0.1:1 does not answer.")
    assert "Traceback" not in done.stderr


def test_a_server_is_started_when_there_is_none(folder: pathlib.Path, environment: dict[str, str]) -> None:
    environment = {k: v for k, v in environment.items() if k != "HEADRACE_API_URL"}
    try:
        done = run_headrace("run", "shop.py:inner", "-p", "n=2", environment=environment, cwd=folder)
        assert done.returncode == 0, done.stderr
        inspect = re.search(r"headrace (flow-run inspect \S+)", done.stderr)
        assert inspect is not None
        found = run_headrace(*inspect[1].split(), "-o", "json", environment=environment)
        assert json.loads(found.stdout)["state"]["type"] == "COMPLETED"
    finally:
        stopped = run_headrace("server", "stop", environment=environment)
    assert stopped.returncode == 0
    assert "Stopped the server" in stopped.stderr


def test_ctrl_c_is_recorded_by_the_server(folder: pathlib.Path, environment: dict[str, str]) -> None:
    with ServerProcess(folder / "server") as server:
        command = [
            sys.executable,
            "-m",
            "headrace",
            "run",
            "shop.py:waits",
            "-p",
            "seconds=60",
            "--name",
            "cut",
        ]
        with subprocess.Popen(
            command,
            cwd=folder,
            env=server.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "waiting\n"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        found = run_headrace("flow-run", "inspect", "cut", "-o", "json", environment=server.environment)
        assert json.loads(found.stdout)["state"]["type"] == "CRASHED"
