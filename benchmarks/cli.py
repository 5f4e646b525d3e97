"""The command: what to measure, and how to print it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks import machine, table
from benchmarks.families import dispatch, flows, logs, newest, scripts, start, tasks, wire, workers
from benchmarks.families.family import Family
from benchmarks.figures import Summary, figure, summarise
from benchmarks.processes import BenchmarkError, scratch_folder
from benchmarks.products.headrace import Headrace
from benchmarks.products.prefect import Prefect
from benchmarks.products.product import Database, Product
from tests.support.postgres import Cluster, provide_cluster

__all__ = ["main"]

_FAMILIES: Sequence[Family] = (
    *tasks.FAMILIES,
    *flows.FAMILIES,
    *logs.FAMILIES,
    *wire.FAMILIES,
    *workers.FAMILIES,
    *dispatch.FAMILIES,
    *newest.FAMILIES,
    *scripts.FAMILIES,
    *start.FAMILIES,
)
_PEERS = {"prefect": Prefect}
_DURABLE = {"fsync": "on", "full_page_writes": "on"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print.

    Returns:
        The exit code: 0 when every figure reaches its gate, 1 when one does not or could not be measured.
    """
    options = _parse(arguments)
    families = [each for each in _FAMILIES if _is_wanted(each, options)]
    kinds = [options.database] if options.database else ["sqlite", "postgresql"]
    results: dict[tuple[str, str], dict[str, Summary]] = {}
    own = Headrace()
    peer = _PEERS[options.peer]() if options.peer else None
    failed = False
    with ExitStack() as stack:
        with scratch_folder() as folder:
            facts = machine.describe(folder)
        cluster = stack.enter_context(provide_cluster(_DURABLE)) if "postgresql" in kinds else None
        for product in [own] if peer is None else [own, peer]:
            for kind in kinds:
                found = results.setdefault((product.name, kind), {})
                for family in _applicable(families, product, kind, kinds):
                    _say(f"{product.name}, {kind}: {family.name}")
                    try:
                        found.update(_measure(family, product, kind, cluster, options.repeat))
                    except BenchmarkError as error:
                        failed = True
                        _say(f"  not measured: {error}")
    _print(options.output, results, facts, own.name, peer.name if peer else None)
    return 1 if failed or _gates_missed(results, own.name) else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast headrace is.")
    parser.add_argument("--only", action="append", metavar="NAME", help="families beginning so; repeatable")
    parser.add_argument(
        "--repeat", type=_positive, default=5, help="repeats per figure (default %(default)s)"
    )
    parser.add_argument("--database", choices=["sqlite", "postgresql"], help="one database (default both)")
    parser.add_argument("--peer", choices=sorted(_PEERS), help="measure this product too, on the same work")
    parser.add_argument("--full", action="store_true", help="also what takes minutes")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args(arguments)
    names = [family.name for family in _FAMILIES]
    for prefix in options.only or ():
        if not any(name.startswith(prefix) for name in names):
            parser.error(f"nothing begins with {prefix!r}; there are: {', '.join(names)}")
    return options


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _is_wanted(family: Family, options: argparse.Namespace) -> bool:
    if options.only:
        return any(family.name.startswith(prefix) for prefix in options.only)
    return options.full or not family.full_only


def _applicable(
    families: Sequence[Family], product: Product, kind: str, kinds: Sequence[str]
) -> Iterator[Family]:
    for family in families:
        is_turn = family.per_database or kind == kinds[0]
        if is_turn and (isinstance(product, Headrace) or not family.own_only):
            yield family


def _measure(
    family: Family, product: Product, kind: str, cluster: Cluster | None, repeats: int
) -> dict[str, Summary]:
    values = family.measure(product, lambda: _empty_database(kind, cluster), repeats)
    return {figure(name).name: summarise(each) for name, each in values.items()}


@contextmanager
def _empty_database(kind: str, cluster: Cluster | None) -> Generator[Database]:
    if cluster is None or kind == "sqlite":
        yield Database("sqlite")
        return
    with cluster.database() as url:
        yield Database(kind, url)


def _gates_missed(results: table.Results, own: str) -> bool:
    return any(
        figure(name).passes(summary.median) is False
        for (product, _), found in results.items()
        if product == own
        for name, summary in found.items()
    )


def _print(output: str, results: table.Results, facts: dict[str, str], own: str, peer: str | None) -> None:
    if output == "json":
        print(table.as_json(results, facts, own))
        return
    for name, fact in facts.items():
        print(f"{name:>10}: {fact}")
    print()
    if any(results.values()):
        print(table.as_table(results, own, peer))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
