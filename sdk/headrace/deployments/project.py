"""`headrace.yaml`: the deployments of a project.

The file is read into models that know every key: an unknown one is an error that names the nearest, with the
line it stands on. `environments` holds what differs from place to place: see
`headrace.deployments.environments`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, cast

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from headrace.deployments import templating as templates
from headrace.deployments.environments import (
    ProjectError,
    in_environment,
    is_protected,
    long_form,
    merge,
)

__all__ = [
    "FILE_NAMES",
    "ConcurrencyEntry",
    "DeploymentEntry",
    "Project",
    "ProjectError",
    "ScheduleEntry",
    "WorkPoolEntry",
    "entry_error",
    "find_project",
    "load_project",
    "long_form",
    "merge",
]

FILE_NAMES: Final = ("headrace.yaml", "prefect.yaml")
"""Names of the file, the first that is there counts."""

Steps = list[dict[str, Any]]
M = TypeVar("M", bound=BaseModel)


def _listed(value: object) -> object:
    """A step that stands alone is a list of one."""
    return [value] if isinstance(value, Mapping) else value  # pyright: ignore[reportUnknownVariableType]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class OverlapEntry(_Entry):
    """What becomes of a fire while an earlier run has not ended."""

    mode: Literal["allow", "skip", "queue", "cancel_old"] = "allow"
    max_queued: int = Field(default=1, ge=1, le=100)
    per_schedule: bool = False
    include_manual: bool = False


class CatchUpEntry(_Entry):
    """What becomes of fires that were missed."""

    mode: Literal["skip", "latest", "all"] = "latest"
    max_runs: int = Field(default=100, ge=1, le=1000)
    window: timedelta | None = None
    include_paused: bool = False


class ScheduleEntry(_Entry):
    """One schedule: exactly one of `cron`, `interval` and `rrule`."""

    cron: str | None = None
    interval: timedelta | None = None
    rrule: str | None = None
    timezone: str | None = None
    day_or: bool = True
    dst_policy: Literal["vixie", "peer"] = "vixie"
    anchor_date: str | None = None
    active: bool = True
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    slug: str | None = None
    replaces: str | None = None
    catch_up: CatchUpEntry | None = None
    overlap: OverlapEntry | None = None
    jitter: timedelta | None = None
    start: str | None = None
    end: str | None = None
    max_scheduled_runs: int | None = Field(default=None, ge=1, le=50)

    @field_validator("catch_up", "overlap", mode="before")
    @classmethod
    def _mode_alone(cls, value: object) -> object:
        return {"mode": value.replace("-", "_")} if isinstance(value, str) else value

    @field_validator("anchor_date", "start", "end", mode="before")
    @classmethod
    def _as_written(cls, value: object) -> object:
        # YAML reads a date as one.
        return value.isoformat() if hasattr(value, "isoformat") else value  # type: ignore[attr-defined]

    @model_validator(mode="after")
    def _one_timing(self) -> ScheduleEntry:
        given = [name for name in ("cron", "interval", "rrule") if getattr(self, name) is not None]
        if len(given) != 1:
            found = f"it has {' and '.join(given)}" if given else "it has none"
            raise ValueError(f"a schedule has exactly one of cron, interval and rrule; {found}")
        return self


class ConcurrencyEntry(_Entry):
    """How many runs of the deployment there may be at once."""

    limit: int = Field(ge=1)
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    grace_period_seconds: int | None = Field(default=None, ge=60, le=86400)


class WorkPoolEntry(_Entry):
    """Where the runs go."""

    name: str | None = None
    work_queue_name: str | None = None
    job_variables: dict[str, Any] = Field(default_factory=dict[str, Any])


class DeploymentEntry(_Entry):
    """One deployment. Steps that are absent are the project's; null and an empty list mean none."""

    name: str | None = None
    version: str | None = None
    version_type: str | None = None
    tags: list[str] | None = None
    labels: dict[str, str] | None = None
    description: str | None = None
    flow_name: str | None = None
    entrypoint: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict[str, Any])
    enforce_parameter_schema: bool = True
    schedules: list[ScheduleEntry] | None = None
    paused: bool | None = None
    concurrency_limit: ConcurrencyEntry | None = None
    work_pool: WorkPoolEntry = Field(default_factory=WorkPoolEntry)
    environment: dict[str, str] | None = Field(default=None, alias="env")
    on_lost: Literal["crash", "reschedule"] | None = None
    max_lost_attempts: int | None = Field(default=None, ge=1)
    overlap: OverlapEntry | None = None
    fairness_key: str | None = None
    priority: int | None = Field(default=None, ge=0, le=9)
    required_labels: dict[str, str] | None = None
    build: Steps | None = None
    push: Steps | None = None
    pull: Steps | None = None

    @model_validator(mode="before")
    @classmethod
    def _shorthands(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        entry = dict(cast("Mapping[str, Any]", value))
        for name in ("triggers", "sla"):
            if entry.pop(name, None):
                raise ValueError(f"{name} cannot be deployed: this version has no automations yet")
        return long_form(entry)

    @field_validator("build", "push", "pull", mode="before")
    @classmethod
    def _one_step(cls, value: object) -> object:
        return [] if value is None else _listed(value)

    def with_outputs(self, outputs: Mapping[str, Any]) -> DeploymentEntry:
        """The entry with what steps have put out in the place of its placeholders.

        Raises:
            ProjectError: what a step put out does not fit where it is wanted.
        """
        said = self.model_dump(exclude_unset=True, exclude={"build", "push", "pull", "fairness_key"})
        lookups = (templates.outputs(outputs), templates.kept("ctx.", "event."))
        try:
            resolved = templates.resolve(said, *lookups)
            if self.fairness_key is not None:  # what it is made of is known when a run is made
                of_runs = templates.kept("parameters", "tags", "labels")
                resolved["fairness_key"] = templates.resolve(self.fairness_key, of_runs, *lookups)
            filled = DeploymentEntry.model_validate(resolved)
        except ValidationError as error:
            raise entry_error(f"deployment {self.name}", error) from error
        except templates.TemplateError as error:
            raise ProjectError(f"deployment {self.name}: {error}") from error
        own: dict[str, Any] = {
            kind: getattr(self, kind) for kind in ("build", "push", "pull") if kind in self.model_fields_set
        }
        return filled.model_copy(update=own)

    def steps(self, kind: Literal["build", "push", "pull"], project: Project) -> Steps | None:
        """The steps of a kind: its own when it names any or none, else the project's."""
        own: Steps | None = getattr(self, kind) if kind in self.model_fields_set else getattr(project, kind)
        return own


class Project(_Entry):
    """The file."""

    version: str | None = Field(default=None, alias="headrace-version")
    foreign_version: str | None = Field(default=None, alias="prefect-version")
    name: str | None = None
    build: Steps | None = None
    push: Steps | None = None
    pull: Steps | None = None
    definitions: Any = None
    environments: dict[str, dict[str, Any]] = Field(default_factory=dict[str, dict[str, Any]])
    deployments: list[DeploymentEntry] = Field(default_factory=list[DeploymentEntry])
    _environment: str | None = PrivateAttr(None)
    _is_protected: bool = PrivateAttr(False)

    @property
    def environment(self) -> str | None:
        """The environment that it was read in."""
        return self._environment

    @property
    def is_protected(self) -> bool:
        """Whether that environment is deployed only by who says that it is meant."""
        return self._is_protected

    def read_in(self, environment: str | None, *, is_protected: bool) -> Project:
        """Note the environment that it was read in."""
        self._environment, self._is_protected = environment, is_protected
        return self

    @field_validator("build", "push", "pull", mode="before")
    @classmethod
    def _one_step(cls, value: object) -> object:
        return _listed(value)

    @field_validator("deployments", "environments", mode="before")
    @classmethod
    def _none_yet(cls, value: object, info: Any) -> object:
        if isinstance(value, Mapping):
            named = cast("Mapping[str, Any]", value)
            nothing: dict[str, Any] = {}
            return {key: nothing if one is None else one for key, one in named.items()}
        return value if value is not None else [] if info.field_name == "deployments" else {}


def entry_error(name: str, error: ValidationError) -> ProjectError:
    """What is wrong with an entry that does not stand in the file as it is.

    Args:
        name: of the entry.
        error: every mistake in it.
    """
    faults = error.errors(include_url=False)
    return ProjectError(
        "\n".join(f"{name}: {_where(one['loc'])}: {_said(one['type'], one)}" for one in faults)
    )


def find_project(folder: Path) -> Path | None:
    """The project file of a folder, if it has one."""
    return next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)


def load_project(
    path: Path,
    environment: str | None = None,
    variables: Mapping[str, str] | None = None,
    usual_environment: str | None = None,
) -> Project:
    """Read a project file.

    Args:
        path: of the file.
        environment: one of its `environments`, merged over every deployment.
        variables: what `{{ $NAME }}` stands for, in all but the steps; None: it is left as it is.
        usual_environment: taken if none is given and the file has any.

    Raises:
        ProjectError: every mistake in it, each with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {error.strerror}") from error
    try:
        read = yaml.load(text, Loader=yaml.CSafeLoader)
        tree = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise ProjectError(f"{path} is no YAML: {error}") from error
    if read is None:
        read = {}
    if not isinstance(read, Mapping):
        raise ProjectError(f"{path} must hold keys and values, such as `deployments:`.")
    content = dict(cast("Mapping[str, Any]", read))
    if environment is None and content.get("environments"):
        environment = usual_environment
    protected = False
    if environment is not None:
        protected = is_protected(content, environment, path)
        content = in_environment(content, environment, path)
    if variables is not None:
        content["deployments"] = [
            _with_variables(one, variables) for one in cast("list[Any]", content.get("deployments") or [])
        ]
    try:
        project = Project.model_validate(content)
    except ValidationError as error:
        raise ProjectError("\n".join(_mistakes(error, path, tree))) from None
    return project.read_in(environment, is_protected=protected)


def _with_variables(entry: Any, variables: Mapping[str, str]) -> Any:
    """The entry with the environment's variables in it; steps have them where they run."""
    if not isinstance(entry, Mapping):
        return entry
    steps = ("build", "push", "pull")
    lookups = (templates.environment(variables), _kept_but_variables)
    return {
        key: value if key in steps else templates.resolve(value, *lookups)
        for key, value in cast("Mapping[str, Any]", entry).items()
    }


def _kept_but_variables(name: str) -> object:
    return templates.MISSING if name.startswith("$") else templates.KEEP


def _mistakes(error: ValidationError, path: Path, tree: Any) -> list[str]:
    return [
        f"{path}:{_line(tree, fault['loc'])}: {_where(fault['loc'])}: {_said(fault['type'], fault)}"
        for fault in error.errors(include_url=False)
    ]


def _said(kind: str, fault: Mapping[str, Any]) -> str:
    if kind != "extra_forbidden":
        return str(fault["msg"]).removeprefix("Value error, ")
    key = str(fault["loc"][-1])
    near = get_close_matches(key, _keys(fault["loc"][:-1]), 1)
    return f"there is no such key.{f' Did you mean {near[0]}?' if near else ''}"


_PARTS: Final[dict[str, type[BaseModel]]] = {
    "deployments": DeploymentEntry,
    "schedules": ScheduleEntry,
    "work_pool": WorkPoolEntry,
    "concurrency_limit": ConcurrencyEntry,
    "catch_up": CatchUpEntry,
    "overlap": OverlapEntry,
}


def _keys(location: tuple[Any, ...]) -> list[str]:
    """The keys that there are at a place of the file."""
    named = [part for part in location if isinstance(part, str)]
    model = _PARTS.get(named[-1], Project) if named else Project
    return [field.alias or name for name, field in model.model_fields.items()]


def _where(location: tuple[Any, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the file"


def _line(tree: Any, location: tuple[Any, ...]) -> int:
    """The line of a place, or of what is around it, from 1."""
    line = 1
    for part in location:
        if isinstance(tree, yaml.SequenceNode) and isinstance(part, int) and part < len(tree.value):
            tree = tree.value[part]
            line = tree.start_mark.line + 1
        elif isinstance(tree, yaml.MappingNode):
            found = [(key, value) for key, value in tree.value if key.value == str(part)]
            if not found:
                break
            line = found[0][0].start_mark.line + 1
            tree = found[0][1]
        else:
            break
    return line
