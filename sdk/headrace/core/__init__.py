"""Words and rules that the SDK and the server share.

Nothing in here does I/O on the network, reads a clock or imports asyncio, anyio, grpc or SQL: what it
needs is passed in.
"""
