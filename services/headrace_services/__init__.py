"""The server: rules, storage, services and loops. Users run it by `headrace server start`."""
