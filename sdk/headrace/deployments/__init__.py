"""Flows made runnable elsewhere: how their code is fetched, and how they are deployed."""
