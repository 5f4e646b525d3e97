"""Which index a list walks on SQLite, which has no statistics to choose by."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from headrace.core.ids import new_id
from headrace.v1.run_pb2 import RunFilter
from headrace_services.storage.dialects import SQLITE
from headrace_services.storage.run_queries import Path, RunQuery, ordering_of
from headrace_services.storage.urls import sqlite_path

NEWEST, EXPECTED, STARTED, NAMED = 1, 2, 3, 4
ID = new_id()

BY_STATE = "runs_state_idx (workspace_id=? AND kind=? AND state_type=?)"
BY_TAG = "PRIMARY KEY (workspace_id=? AND tag=? AND kind=? AND state_type=?)"
BY_ROOT = "runs_root_idx (root_run_id=?)"

CASES = [
    (RunFilter(), NEWEST, BY_STATE),
    (RunFilter(kinds=[1], state_types=[7]), NEWEST, BY_STATE),
    (RunFilter(tags_all=["a"]), NEWEST, BY_TAG),
    (
        RunFilter(tags_all=["a"], names=["x"], flow_names=["f"]),
        NEWEST,
        BY_TAG,
    ),
    (RunFilter(kinds=[1], flow_names=["f"]), NEWEST, "runs_flow_idx (flow_id=? AND state_type=?)"),
    (RunFilter(kinds=[1]), EXPECTED, "runs_expected_start_time_idx"),
    (RunFilter(kinds=[1]), STARTED, "runs_start_time_idx"),
    (RunFilter(kinds=[1]), NAMED, "runs_name_idx"),
    (RunFilter(root_run_ids=[ID]), NEWEST, BY_ROOT),
    (RunFilter(root_run_ids=[ID], kinds=[2], state_types=[7]), NEWEST, BY_ROOT),
    (RunFilter(root_run_ids=[ID, new_id()], kinds=[2], tags_all=["a"]), NAMED, BY_ROOT),
    (RunFilter(parent_run_ids=[ID]), NEWEST, BY_ROOT),
    (RunFilter(ids=[ID], state_types=[7], tags_any=["a"]), NEWEST, "sqlite_autoindex_runs_1 (id=?)"),
    (RunFilter(id_prefix=ID[:8]), NEWEST, "sqlite_autoindex_runs_1 (id>? AND id<?)"),
]


def searched(connection: sqlite3.Connection, sql: str, parameters: list[object]) -> list[str]:
    """What the statement's plan says of the rows it looks for in runs and in their tags."""
    plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    assert not [line for line in plan if line in ("SCAN r", "SCAN t")], plan
    return [line for line in plan if line.startswith(("SEARCH r ", "SEARCH t "))]


@pytest.mark.parametrize(("filter", "order", "index"), CASES)
def test_a_list_goes_straight_to_its_runs(sqlite_url: str, filter: RunFilter, order: int, index: str) -> None:
    query, ordering = RunQuery(filter, SQLITE), ordering_of(order)
    paths = query.paths(ordering)
    with closing(sqlite3.connect(sqlite_path(sqlite_url))) as connection:
        lines = searched(connection, *query.page(ordering, None, 51, paths[0] if paths else Path()))
    assert index in lines[0], lines


@pytest.mark.parametrize(
    ("filter", "index"),
    [
        (RunFilter(state_types=[7]), "runs_state_idx"),
        (RunFilter(root_run_ids=[ID], kinds=[2]), "runs_root_idx"),
        (RunFilter(tags_all=["a"]), "PRIMARY KEY (workspace_id=? AND tag=?"),
        (RunFilter(kinds=[1], flow_names=["f"]), "runs_flow_idx"),
        (RunFilter(ids=[ID]), "sqlite_autoindex_runs_1 (id=?)"),
    ],
)
def test_a_count_goes_straight_to_its_runs(sqlite_url: str, filter: RunFilter, index: str) -> None:
    query = RunQuery(filter, SQLITE)
    paths = query.paths()
    with closing(sqlite3.connect(sqlite_path(sqlite_url))) as connection:
        lines = searched(connection, *query.counted(path=paths[0] if paths else Path()))
    assert index in lines[0], lines
