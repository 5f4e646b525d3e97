"""Steps, run for real: programs, folders, packages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.deployments.steps import StepExecutionError, run_shell_script, run_step, run_steps


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def own_steps(here: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with steps of a user's own."""
    (here / "own_steps.py").write_text(
        "def add(a, b=0): return {'total': a + b}\n"
        "async def later(value): return {'value': value}\n"
        "def silent(): pass\n"
        "def wrong(): return 3\n"
        "def broken(): raise RuntimeError('no space left')\n"
    )
    monkeypatch.setattr(sys, "path", [str(here), *sys.path])
    monkeypatch.delitem(sys.modules, "own_steps", raising=False)
    return "own_steps"


async def test_what_a_step_puts_out_is_there_for_the_next(own_steps: str) -> None:
    done = await run_steps(
        [
            {"own_steps.add": {"id": "first", "a": 1, "b": 2}},
            {"own_steps.later": {"value": "{{ first.total }}"}},
            {"own_steps.add": {"a": "{{ total }}", "b": "{{ value }}"}},
            {"own_steps.silent": None},
        ]
    )
    assert done == {"first": {"total": 3}, "total": 6, "value": 3}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        pytest.param({"own_steps.add": {"a": 1}, "own_steps.later": {}}, "one key", id="two keys"),
        pytest.param({}, "one key", id="no key"),
        pytest.param({"own_steps.add": [1]}, "names and values", id="arguments in a list"),
        pytest.param({"own_steps.add": {"a": 1, "c": 1}}, "argument 'c'", id="unknown argument"),
        pytest.param({"own_steps.add": {}}, "missing a required argument: 'a'", id="missing argument"),
        pytest.param({"own_steps.ad": {}}, "Did you mean add", id="near name"),
        pytest.param({"git_clon": {}}, "Did you mean git_clone", id="near name of ours"),
        pytest.param({"nowhere.step": {}}, "No module named 'nowhere'", id="no module"),
        pytest.param({"own_steps.wrong": {}}, "returned a int", id="no mapping"),
        pytest.param({"own_steps.broken": {}}, "own_steps.broken failed: no space left", id="failure"),
    ],
)
async def test_a_step_that_cannot_be_run_is_named(own_steps: str, step: dict[str, Any], message: str) -> None:
    with pytest.raises(StepExecutionError, match=message):
        await run_step(step)


async def test_a_failure_stops_the_list(own_steps: str, here: Path) -> None:
    told: list[str] = []
    with pytest.raises(StepExecutionError, match="no space left"):
        await run_steps(
            [{"own_steps.broken": {}}, {"run_shell_script": {"script": "touch reached"}}], report=told.append
        )
    assert told == ["own_steps.broken"] and not (here / "reached").exists()


async def test_a_file_written_for_the_peer_is_understood(here: Path) -> None:
    step = {"prefect.deployments.steps.set_working_directory": {"directory": str(here)}}
    assert await run_step(step) == {"directory": str(here)}


async def test_a_directory_that_is_not_there() -> None:
    with pytest.raises(StepExecutionError, match="is no directory on this machine"):
        await run_step({"set_working_directory": {"directory": "absent"}})


async def test_a_required_package_is_installed_when_it_is_missing(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a folder instead of an index: the package is one that nobody has."""
    package = here / "package"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[project]\nname = "steps-of-a-test"\nversion = "1"\n'
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[tool.hatch.build.targets.wheel]\ninclude = ["steps_of_a_test.py"]\n'
    )
    (package / "steps_of_a_test.py").write_text("def hello(): return {'said': 'hello'}\n")
    target = here / "site"
    monkeypatch.setenv("PIP_TARGET", str(target))
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "false")  # pip reads it as: no isolation
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(sys, "path", [str(target), *sys.path])
    step = {"steps_of_a_test.hello": {"requires": str(package)}}
    assert await run_step(step) == {"said": "hello"}
    with pytest.raises(StepExecutionError, match="could not be installed"):
        await run_step({"nowhere.step": {"requires": str(here / "absent")}})


class TestShellScripts:
    async def test_each_line_is_a_program(self, capsys: pytest.CaptureFixture[str]) -> None:
        script = f"""
        # a comment
        {sys.executable} -c "print('one')"

        {sys.executable} -c "import sys; print('two'); print('oh', file=sys.stderr)"
        """
        done = await run_shell_script(script)
        assert done == {"stdout": "one\ntwo", "stderr": "oh"}
        assert capsys.readouterr() == ("one\ntwo\n", "oh\n")

    async def test_in_silence(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert await run_shell_script("echo one", stream_output=False) == {"stdout": "one", "stderr": ""}
        assert capsys.readouterr().out == ""

    async def test_a_line_is_not_given_to_a_shell_unless_asked(self) -> None:
        assert (await run_shell_script("echo a && echo $HOME"))["stdout"] == "a && echo $HOME"
        assert (await run_shell_script("echo a && echo b", shell=True))["stdout"] == "a\nb"

    async def test_variables(self, here: Path) -> None:
        (here / "below").mkdir()
        done = await run_shell_script(
            "echo $NAME ${NAME} $$ $ABSENT\npwd", directory="below", env={"NAME": "ada"}, expand_env_vars=True
        )
        assert done["stdout"].splitlines() == ["ada ada $ $ABSENT", str(here / "below")]

    async def test_a_failure_ends_the_script_and_says_what_was_written(self, here: Path) -> None:
        script = f"{sys.executable} -c \"import sys; sys.exit('the disk is full')\"\ntouch reached"
        with pytest.raises(RuntimeError, match=r"ended with code 1.\nthe disk is full"):
            await run_shell_script(script)
        assert not (here / "reached").exists()

    async def test_output_in_no_known_encoding(self) -> None:
        script = f"{sys.executable} -c \"import sys; sys.stdout.buffer.write(b'a\\xffb')\""
        assert (await run_shell_script(script))["stdout"] == "a\ufffdb"


async def test_requirements_are_installed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (here / "requirements.txt").write_text("# nothing\n")
    assert "stderr" in await run_step({"pip_install_requirements": {}})
    (here / "other.txt").write_text("a-package-that-nobody-has\n")
    with pytest.raises(StepExecutionError, match="No matching distribution"):
        await run_step({"pip_install_requirements": {"requirements_file": "other.txt"}})
