"""The server: rules, storage, services and loops. Users do not import it; they run `headrace server start`."""
