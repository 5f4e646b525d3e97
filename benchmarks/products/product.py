"""What the measurements need to know of a product."""

from __future__ import annotations

import pathlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from benchmarks.processes import Program

__all__ = ["NEWEST_LINES", "OWN_PYTHON", "Amounts", "Database", "Databases", "Product", "Server"]

NEWEST_LINES = 4
_WORKLOAD = pathlib.Path(__file__).parents[1] / "programs" / "workload.py"


@dataclass(frozen=True)
class Amounts:
    """How much work one repeat is; rates and times per unit make the products comparable."""

    tasks: int
    flows: int
    log_lines: int
    visible_within_seconds: float
    """After this long, what is not visible counts as lost and the measurement fails."""


@dataclass(frozen=True)
class Database:
    """An empty database: `kind` is "sqlite" (then `url` is None: the product's own file) or "postgresql"."""

    kind: str
    url: str | None = None


Databases = Callable[[], AbstractContextManager[Database]]
"""Each call gives another empty database for the time of a block."""


class Server(ABC):
    """A running server of a product, and what an independent client can ask it."""

    pid: int
    address: str
    environment: Mapping[str, str]
    """For client programs that are to use this server."""
    folder: pathlib.Path

    @abstractmethod
    def completed_tasks(self, flow_run_id: str) -> int:
        """How many task runs of the flow run are shown COMPLETED."""

    @abstractmethod
    def completed_flows(self, flow_name: str) -> int:
        """How many runs of the flow are shown COMPLETED."""

    @abstractmethod
    def newest_log_lines(self, flow_run_id: str) -> list[str]:
        """The newest `NEWEST_LINES` lines that a query shows; a product adds some of its own at the end."""

    @abstractmethod
    def count_log_lines(self, flow_run_id: str) -> int:
        """How many lines a client gets by reading all pages."""


class Product(ABC):
    """Something that can be measured."""

    name: str
    package: str
    python: pathlib.Path
    amounts: Amounts
    query_command: Sequence[str]
    """CLI arguments that list runs."""

    @property
    def command(self) -> str:
        """Path of the product's CLI."""
        return str(self.python.with_name(self.package))

    @property
    def workload(self) -> Sequence[str]:
        """The command of the program that does the work."""
        return [str(self.python), str(_WORKLOAD), self.package]

    @abstractmethod
    def environment(self, home: pathlib.Path) -> dict[str, str]:
        """For a program that has the home folder to itself and no server."""

    @abstractmethod
    @contextmanager
    def server(self, home: pathlib.Path, database: Database) -> Generator[Server]:
        """A server for the time of the block, healthy when it begins."""

    def program(self, server: Server) -> Program:
        """The workload as a client of `server`."""
        return Program(self.workload, server.environment, server.folder / "client.log")


OWN_PYTHON = pathlib.Path(sys.executable)
