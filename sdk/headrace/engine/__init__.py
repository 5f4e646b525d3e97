"""The one engine of flows and tasks.

Coroutines that await two things only: the `Ops` they are given, and the body. An `async def` flow or task
awaits them; a `def` one steps them in place, over ops that block instead of suspending (`run_now`). Nothing
in here knows an event loop, the network or what time it is.
"""
