"""Workers whose runs do not die with them: containers, pods, anything that an engine keeps.

What such a type of worker has to do is `worker.InfrastructureWorker`; the life of a run is the same for all:

1. `create` makes the infrastructure and starts it. It is marked with `configuration.labels`, which name the
   pool, the run, the attempt and its fence (`labels`). What `create` returns, the infrastructure id, is
   recorded on the attempt; it is all that another worker process has to go by, so it must be enough to find
   the infrastructure again from any machine that can reach the engine.
2. `watch` waits for the end, `read_logs` gives what is printed meanwhile. While the engine does not answer
   they raise `EngineUnavailable` and are called again, for as long as that takes: an engine that is being
   restarted ends no run. `InfrastructureGone` is the end too: somebody has removed it.
3. The exit code and the reason, in words, become the run's crash message if the run has not said itself how
   it ended.
4. `stop` ends it early: for a cancellation that nobody in the run obeyed, for a run that somebody else has
   by now.
5. `clean_up` removes what is not to stay, when the end is known.

A worker process that is killed changes nothing for its runs: their processes hold them by leases of their
own. Every worker of the pool looks now and then for infrastructure that it does not hold (`find`), and names
it to the server, which answers one of three ways: nobody answers for the attempt, so this worker is to see
it through (`adopt`: the same attempt, with what it printed since); the attempt is over, so it is to be
removed (`teardown`); or another worker has it. The server also has infrastructure torn down that it knows
of and nobody has named (`teardown`, by whichever worker of the pool is there).

So what a type of worker implements is eight methods that know nothing of sessions, leases or fences.
"""
