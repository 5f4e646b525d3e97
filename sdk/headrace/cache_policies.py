"""What makes two calls of a task the same call.

    @task(cache_policy=INPUTS + TASK_SOURCE)
    def price(sku: str, region: str) -> Decimal: ...

Policies are put together with `+`; an argument is left out with `-`: `INPUTS - "debug"`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Self

from headrace.core.fingerprint import HashError, fingerprint
from headrace.core.fingerprint.functions import source_of
from headrace.locking.protocol import IsolationLevel, LockManager

if TYPE_CHECKING:
    from headrace.context import TaskRunContext

__all__ = [
    "DEFAULT",
    "FLOW_PARAMETERS",
    "INPUTS",
    "NO_CACHE",
    "NONE",
    "RUN_ID",
    "TASK_SOURCE",
    "CacheKeyFnPolicy",
    "CachePolicy",
    "CacheScope",
    "CompoundCachePolicy",
    "FlowParameters",
    "Inputs",
    "RunId",
    "TaskSource",
]

CacheKeyFn = Callable[["TaskRunContext", dict[str, Any]], str | None]
"""Called with the task run's context and the resolved arguments; None: not cached this time."""


class CacheScope(str, Enum):
    """Who shares a result through the index in the server: the prefix of its key."""

    RUN = "run"
    """The tasks of one flow run; a task run on its own shares with nobody."""
    FLOW = "flow"
    """The runs of one flow."""
    PROJECT = "project"
    """The flows of one project, known by the `name` in its headrace.yaml, else by the name of its folder."""
    GLOBAL = "global"
    """Everybody who uses the server."""


_Scope = CacheScope | Literal["run", "flow", "project", "global"]


@dataclass
class CachePolicy:
    """A way to give calls of tasks their keys. Subclasses say how in `compute_key`.

    Attributes:
        key_storage: where records are kept, apart from the values; None: with the values.
        isolation_level: what two calls with one key may do at the same time; None: READ_COMMITTED.
        lock_manager: who keeps them apart under SERIALIZABLE.
        cache_scope: who shares results through the index in the server; None: whoever reaches the storage,
            without an index.
    """

    key_storage: Any = None
    isolation_level: Literal["READ_COMMITTED", "SERIALIZABLE"] | IsolationLevel | None = None
    lock_manager: LockManager | None = None
    cache_scope: _Scope | None = None

    @property
    def is_never(self) -> bool:
        """Whether this is `NO_CACHE`."""
        return isinstance(self, _NoCache)

    @classmethod
    def from_cache_key_fn(cls, cache_key_fn: CacheKeyFn) -> CacheKeyFnPolicy:
        """The policy whose keys come from a function."""
        return CacheKeyFnPolicy(cache_key_fn=cache_key_fn)

    def configure(
        self,
        key_storage: Any = None,
        lock_manager: LockManager | None = None,
        isolation_level: Literal["READ_COMMITTED", "SERIALIZABLE"] | IsolationLevel | None = None,
        cache_scope: _Scope | None = None,
    ) -> Self:
        """A copy with another place for records, another lock manager, isolation level or scope.

        Args:
            key_storage: a place for records, apart from the values.
            lock_manager: keeps runs with one key apart under SERIALIZABLE; with a scope, None: the server.
            isolation_level: what two calls with one key may do at the same time.
            cache_scope: share results through the index in the server, with whom; see `CacheScope`.

        Raises:
            ValueError: there is no such isolation level, or no such scope.
        """
        configured = copy.copy(self)
        if key_storage is not None:
            configured.key_storage = key_storage
        if lock_manager is not None:
            configured.lock_manager = lock_manager
        if isolation_level is not None:
            configured.isolation_level = IsolationLevel(isolation_level)
        if cache_scope is not None:
            configured.cache_scope = CacheScope(cache_scope)
        return configured

    def compute_key(
        self,
        task_ctx: TaskRunContext | None,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The key of one call, or None: this one is not cached.

        Args:
            task_ctx: the task run; None for a key that has to be computed outside of one.
            inputs: the arguments, futures and states resolved.
            flow_parameters: those of the flow run around it.
            kwargs: for what later versions pass.

        Raises:
            ValueError: something among the inputs has no fingerprint.
        """
        raise NotImplementedError(f"{type(self).__name__} has no compute_key")

    def __add__(self, other: CachePolicy) -> CachePolicy:
        if isinstance(other, _NoCache):
            return self
        return CompoundCachePolicy(policies=[self, other], **_united(self, other))

    def __sub__(self, other: str) -> CachePolicy:
        _argument_name(other)
        return self


@dataclass
class CacheKeyFnPolicy(CachePolicy):
    """Keys from a function of the author's."""

    cache_key_fn: CacheKeyFn | None = None

    def compute_key(
        self,
        task_ctx: TaskRunContext | None,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """What the function says.

        Raises:
            TypeError: it gave neither a string nor None.
        """
        if self.cache_key_fn is None or task_ctx is None:
            return None
        key: Any = self.cache_key_fn(task_ctx, dict(inputs))
        if key is not None and not isinstance(key, str):
            raise TypeError(f"cache_key_fn must return a string or None, got {type(key).__name__}")
        return key


@dataclass
class CompoundCachePolicy(CachePolicy):
    """Several policies: calls are the same if they are so for each of them."""

    policies: list[CachePolicy] = field(default_factory=list[CachePolicy])

    def __post_init__(self) -> None:
        self.policies = _flattened(self.policies)

    def compute_key(
        self,
        task_ctx: TaskRunContext | None,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The hash of the parts' keys, without those that gave none; None if all gave none."""
        found = [policy.compute_key(task_ctx, inputs, flow_parameters, **kwargs) for policy in self.policies]
        keys = [key for key in found if key is not None]
        return fingerprint(keys) if keys else None

    def __sub__(self, other: str) -> CachePolicy:
        _argument_name(other)
        return replace(self, policies=[policy - other for policy in self.policies])


@dataclass
class _NoCache(CachePolicy):
    """Never a key; adds nothing to other policies."""

    def compute_key(
        self,
        task_ctx: TaskRunContext | None,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """None."""
        return None

    def __add__(self, other: CachePolicy) -> CachePolicy:
        return other


@dataclass
class TaskSource(CachePolicy):
    """The task's code: comments, layout and decorators do not count."""

    def compute_key(
        self,
        task_ctx: TaskRunContext | None,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The hash of the function's source, or of its code where there is no source."""
        if task_ctx is None:
            return None
        return fingerprint(source_of(task_ctx.task.fn), name="source")


@dataclass
class FlowParameters(CachePolicy):
    """The parameters of the flow run."""

    def compute_key(
        self,
        task_ctx: TaskRunContext | None,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The fingerprint of the parameters; None without any."""
        return _fingerprint_of("flow_parameters", flow_parameters) if flow_parameters else None


@dataclass
class RunId(CachePolicy):
    """The flow run: nothing is shared with other runs. A task run on its own shares with nobody."""

    def compute_key(
        self,
        task_ctx: TaskRunContext | None,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The id of the innermost flow run, or of the task run itself."""
        if task_ctx is None:
            return None
        return task_ctx.task_run.flow_run_id or task_ctx.task_run.id


@dataclass
class Inputs(CachePolicy):
    """The arguments of the call.

    Attributes:
        exclude: names of arguments that do not count.
    """

    exclude: list[str] = field(default_factory=list[str])

    def compute_key(
        self,
        task_ctx: TaskRunContext | None,
        inputs: Mapping[str, Any],
        flow_parameters: Mapping[str, Any],
        **kwargs: Any,
    ) -> str | None:
        """The fingerprint of the arguments by name; None without any.

        Raises:
            ValueError: one of them has none; the message says which part of it is to blame.
        """
        if not inputs:
            return None
        counted = {name: value for name, value in inputs.items() if name not in self.exclude}
        return _fingerprint_of("inputs", counted)

    def __sub__(self, other: str) -> CachePolicy:
        return replace(self, exclude=[*self.exclude, _argument_name(other)])


def task_input_hash(context: TaskRunContext, arguments: dict[str, Any]) -> str | None:
    """A ready-made `cache_key_fn`: the task, its code and its arguments.

    Args:
        context: the task run's context.
        arguments: its resolved arguments.

    Raises:
        ValueError: one of them has no fingerprint.
    """
    return fingerprint(
        [context.task.task_key, source_of(context.task.fn), _fingerprint_of("inputs", arguments)],
        name="call",
    )


def checked(policy: Any) -> CachePolicy:
    """The option `cache_policy`.

    Raises:
        TypeError: no policy.
        ValueError: its scope is none, or it is one beside a storage for keys.
    """
    if not isinstance(policy, CachePolicy):
        raise TypeError(
            "'cache_policy' must be a policy of headrace.cache_policies, such as INPUTS, or None; got "
            f"{policy!r}."
        )
    if policy.cache_scope is not None:
        scopes = [scope.value for scope in CacheScope]
        if policy.cache_scope not in scopes:
            raise ValueError(f"'cache_scope' must be one of {', '.join(scopes)}; got {policy.cache_scope!r}.")
        if policy.key_storage is not None:
            raise ValueError(
                "A cache policy with a 'cache_scope' has its records in the server: leave 'key_storage' out."
            )
    return policy


def _fingerprint_of(name: str, values: Mapping[str, Any]) -> str:
    try:
        return fingerprint(dict(values), name=name)
    except HashError as error:
        raise ValueError(
            f"Unable to create a cache key: {error}\n"
            "What is more than data (a lock, an open file, a client) cannot be part of a key. Leave the "
            "argument out (cache_policy=INPUTS - 'argument'), compute the key yourself (cache_key_fn), or "
            "turn caching off (cache_policy=NO_CACHE)."
        ) from error


def _argument_name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError("Can only subtract strings from key policies.")
    return name


def _united(one: CachePolicy, other: CachePolicy) -> dict[str, Any]:
    """The configuration of both; each may leave open what the other says."""
    words = {
        "key_storage": "storage locations",
        "isolation_level": "isolation levels",
        "lock_manager": "lock implementations",
        "cache_scope": "cache scopes",
    }
    united: dict[str, Any] = {}
    for name, word in words.items():
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine is not None and theirs is not None and mine != theirs:
            raise ValueError(f"Cannot add CachePolicies with different {word}.")
        united[name] = theirs if mine is None else mine
    return united


def _flattened(policies: Sequence[CachePolicy]) -> list[CachePolicy]:
    """Without compounds in compounds, and with one `Inputs` that leaves out what any of them does."""
    flat: list[CachePolicy] = []
    for policy in policies:
        flat += policy.policies if isinstance(policy, CompoundCachePolicy) else [policy]
    inputs = [policy for policy in flat if isinstance(policy, Inputs)]
    if len(inputs) < 2:
        return flat
    excluded = sorted({name for policy in inputs for name in policy.exclude})
    merged = replace(inputs[0], exclude=excluded)
    return [merged, *(policy for policy in flat if not isinstance(policy, Inputs))]


INPUTS = Inputs()
NONE = _NoCache()
NO_CACHE = NONE
TASK_SOURCE = TaskSource()
FLOW_PARAMETERS = FlowParameters()
RUN_ID = RunId()
DEFAULT = INPUTS + TASK_SOURCE + RUN_ID
