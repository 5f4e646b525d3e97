"""Workers: processes that take runs from the server over one stream and see them through."""
