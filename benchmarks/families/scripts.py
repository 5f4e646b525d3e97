"""What a script costs before and without any server: the import, hello world, one more task, futures."""

from __future__ import annotations

import pathlib
import subprocess
import time

from benchmarks.families.family import Family, Values
from benchmarks.machine import resident_bytes
from benchmarks.processes import Program, scratch_folder
from benchmarks.products.product import Databases, Product

__all__ = ["FAMILIES"]

_HELLO = """
from {package} import flow

@flow
def hello(name: str = "world") -> str:
    return f"hello, {{name}}"

print(hello())
"""
_FORBIDDEN = """
import sys
from {package} import flow, get_run_logger, task
words = ("sqlalchemy", "sqlite3", "aiosqlite", "asyncpg", "alembic", "http.client", "httpx", "httpx2",
         "httpcore", "requests", "urllib3", "aiohttp", "starlette", "fastapi", "uvicorn", "rich",
         "typer", "cyclopts", "{package}_services", "{package}.server", "{package}.cli")
print(*(word for word in words if word in sys.modules))
"""
_FEW, _MANY = 100, 1100
_WARM_UP, _FUTURES = 100, 10_000


def _import(product: Product, databases: Databases, repeats: int) -> Values:
    line = f"from {product.package} import flow, task"
    with scratch_folder() as home:
        _run(product, home, "-c", line)  # compiles what is not compiled yet
        times = list[float]()
        for _ in range(3 * repeats):
            bare, _ = _run(product, home, "-c", "pass")
            full, _ = _run(product, home, "-c", line)
            times.append((full - bare) * 1e3)
        _, loaded = _run(product, home, "-c", _FORBIDDEN.format(package=product.package))
    return {"import": times, "import.forbidden": [float(len(loaded.split()))]}


def _hello(product: Product, databases: Databases, repeats: int) -> Values:
    with scratch_folder() as folder:
        script = folder / "hello.py"
        script.write_text(_HELLO.format(package=product.package))
        whole = [_run(product, folder / str(each), str(script))[0] for each in range(repeats)]
    return {"hello": whole}


def _one_more_task(product: Product, databases: Databases, repeats: int) -> Values:
    with scratch_folder() as home:
        program = Program(product.workload, product.environment(home), home / "client.log")
        with program:
            program.ask("sequential", count=1)
            return {"hello.task": [_difference(program) for _ in range(repeats)]}


def _futures(product: Product, databases: Databases, repeats: int) -> Values:
    """Each time in a process of its own: what one has taken from the system it hardly gives back."""
    grown: list[float] = []
    for _ in range(repeats):
        with (
            scratch_folder() as home,
            Program(product.workload, product.environment(home), home / "client.log") as program,
        ):
            program.ask("futures_held", count=_WARM_UP)
            before = resident_bytes(program.pid)
            program.ask("futures_held", count=_FUTURES)
            grown.append((resident_bytes(program.pid) - before) / 1e6)
    return {"futures.memory": grown}


def _difference(program: Program) -> float:
    few = program.ask("sequential", count=_FEW)["seconds"]
    many = program.ask("sequential", count=_MANY)["seconds"]
    return float(many - few) / (_MANY - _FEW) * 1e3


def _run(product: Product, home: pathlib.Path, *arguments: str) -> tuple[float, str]:
    home.mkdir(exist_ok=True)
    environment = product.environment(home)
    begin = time.perf_counter()
    done = subprocess.run(
        [str(product.python), *arguments],
        env=environment,
        cwd=home,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return time.perf_counter() - begin, done.stdout


FAMILIES = (
    Family("import", _import, per_database=False),
    Family("hello", _hello, per_database=False),
    Family("hello.task", _one_more_task, per_database=False, own_only=True),
    Family("futures", _futures, per_database=False, own_only=True),
)
