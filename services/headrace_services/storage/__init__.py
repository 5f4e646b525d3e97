"""Where runs are kept: schema, one write path, queries, and word of what changed.

SQLite and PostgreSQL mean the same here. Nothing above this package sees a row: what goes in and comes
out are `headrace.v1` messages and the values of `storage.values`.
"""
