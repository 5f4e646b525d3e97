"""The database fixtures give what they promise."""

from __future__ import annotations

from headrace_services.storage import migrations


async def test_a_fresh_database_has_the_newest_schema(database_url: str) -> None:
    assert await migrations.current_revision(database_url) == migrations.head_revision()


async def test_an_empty_database_has_no_schema(empty_database_url: str) -> None:
    assert await migrations.current_revision(empty_database_url) is None
