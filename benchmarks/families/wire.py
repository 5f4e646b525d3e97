"""headrace's own calls: how soon one state is durable, how many runs can be created, what a recorded task
run costs the server, and how soon a durable flow is where it was."""

from __future__ import annotations

import pathlib
import statistics

from benchmarks.families.family import Family, Values
from benchmarks.machine import cpu_seconds
from benchmarks.processes import Program, scratch_folder
from benchmarks.products.product import Databases, Product, Server

__all__ = ["FAMILIES"]

_PROGRAMS = pathlib.Path(__file__).parents[1] / "programs"
_STATES = 300
_CREATES, _IN_FLIGHT = 3200, 32
_RECORDED = 5000
_REPLAYED = 5000


def _acknowledgement(product: Product, databases: Databases, repeats: int) -> Values:
    with (
        scratch_folder() as home,
        databases() as database,
        product.server(home, database) as server,
        _program(product, server, "acknowledgements.py") as program,
    ):
        program.ask("states", count=20)
        medians = [
            statistics.median(program.ask("states", count=_STATES)["seconds"]) * 1e3 for _ in range(repeats)
        ]
    return {"acknowledgement": medians}


def _creates(product: Product, databases: Databases, repeats: int) -> Values:
    with (
        scratch_folder() as home,
        databases() as database,
        product.server(home, database) as server,
        _program(product, server, "creates.py", server.address) as program,
    ):
        rates = [_rate(program) for _ in range(repeats + 1)]
    return {"creates": rates[1:]}


def _recordings(product: Product, databases: Databases, repeats: int) -> Values:
    with (
        scratch_folder() as home,
        databases() as database,
        product.server(home, database) as server,
        _program(product, server, "recordings.py", server.address) as program,
    ):
        program.ask("record", count=500)
        measured = [_recorded(server, program) for _ in range(repeats)]
    return {
        "record": [rate for rate, _ in measured],
        "record.server_cpu": [micros for _, micros in measured],
    }


def _replays(product: Product, databases: Databases, repeats: int) -> Values:
    with (
        scratch_folder() as home,
        databases() as database,
        product.server(home, database) as server,
        _program(product, server, "replays.py", server.address) as program,
    ):
        program.ask("replay", count=50)
        answers = [program.ask("replay", count=_REPLAYED) for _ in range(repeats)]
    return {
        "replay": [_REPLAYED / answer["seconds"] for answer in answers],
        "replay.client_cpu": [answer["cpu"] / _REPLAYED * 1e6 for answer in answers],
    }


def _recorded(server: Server, program: Program) -> tuple[float, float]:
    """Task runs per second, and microseconds of the server's CPU for each."""
    before = cpu_seconds(server.pid)
    seconds = float(program.ask("record", count=_RECORDED)["seconds"])
    return _RECORDED / seconds, (cpu_seconds(server.pid) - before) / _RECORDED * 1e6


def _rate(program: Program) -> float:
    return float(_CREATES / program.ask("creates", count=_CREATES, in_flight=_IN_FLIGHT)["seconds"])


def _program(product: Product, server: Server, name: str, *arguments: str) -> Program:
    command = [str(product.python), str(_PROGRAMS / name), *arguments]
    return Program(command, server.environment, server.folder / "client.log")


FAMILIES = (
    Family("acknowledgement", _acknowledgement, own_only=True),
    Family("creates", _creates, own_only=True),
    Family("record", _recordings, own_only=True),
    Family("replay", _replays, own_only=True),
)
