"""What a container is made with. Pure: from job variables to the body of a request to the engine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from headrace.docker.names import default_image, registry_of
from headrace_workers.infrastructure.worker import InfrastructureJobConfiguration

__all__ = [
    "AUTO_REMOVE",
    "HOST_NAME",
    "DockerJobConfiguration",
    "RegistryCredentials",
    "container_body",
    "container_name",
    "parse_size",
]

AUTO_REMOVE: Final = "headrace.dev/auto-remove"
"""Label of a container that is to be removed when it has ended, for whichever worker sees that end."""
HOST_NAME: Final = "host.docker.internal"
"""What the engine's machine is called inside of a container."""
_LOCAL_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "[::1]", "0.0.0.0"})
_UNITS: Final = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_VOLUME: Final = re.compile(r"[^:]+:/[^:]*(:[a-zA-Z,]+)?")

# What other tools call an option of the engine: section, and its name there.
_OPTIONS: Final[dict[str, tuple[str, str]]] = {
    "domainname": ("", "Domainname"),
    "entrypoint": ("", "Entrypoint"),
    "healthcheck": ("", "Healthcheck"),
    "hostname": ("", "Hostname"),
    "mac_address": ("", "MacAddress"),
    "stop_signal": ("", "StopSignal"),
    "tty": ("", "Tty"),
    "user": ("", "User"),
    "working_dir": ("", "WorkingDir"),
    "cap_add": ("HostConfig", "CapAdd"),
    "cap_drop": ("HostConfig", "CapDrop"),
    "cgroup_parent": ("HostConfig", "CgroupParent"),
    "cpu_count": ("HostConfig", "CpuCount"),
    "cpu_percent": ("HostConfig", "CpuPercent"),
    "cpu_period": ("HostConfig", "CpuPeriod"),
    "cpu_quota": ("HostConfig", "CpuQuota"),
    "cpu_shares": ("HostConfig", "CpuShares"),
    "cpuset_cpus": ("HostConfig", "CpusetCpus"),
    "cpuset_mems": ("HostConfig", "CpusetMems"),
    "device_requests": ("HostConfig", "DeviceRequests"),
    "dns": ("HostConfig", "Dns"),
    "dns_opt": ("HostConfig", "DnsOptions"),
    "dns_search": ("HostConfig", "DnsSearch"),
    "group_add": ("HostConfig", "GroupAdd"),
    "init": ("HostConfig", "Init"),
    "ipc_mode": ("HostConfig", "IpcMode"),
    "mem_reservation": ("HostConfig", "MemoryReservation"),
    "mem_swappiness": ("HostConfig", "MemorySwappiness"),
    "nano_cpus": ("HostConfig", "NanoCpus"),
    "oom_kill_disable": ("HostConfig", "OomKillDisable"),
    "oom_score_adj": ("HostConfig", "OomScoreAdj"),
    "pid_mode": ("HostConfig", "PidMode"),
    "pids_limit": ("HostConfig", "PidsLimit"),
    "read_only": ("HostConfig", "ReadonlyRootfs"),
    "runtime": ("HostConfig", "Runtime"),
    "security_opt": ("HostConfig", "SecurityOpt"),
    "shm_size": ("HostConfig", "ShmSize"),
    "storage_opt": ("HostConfig", "StorageOpt"),
    "sysctls": ("HostConfig", "Sysctls"),
    "tmpfs": ("HostConfig", "Tmpfs"),
    "userns_mode": ("HostConfig", "UsernsMode"),
    "uts_mode": ("HostConfig", "UTSMode"),
    "volumes_from": ("HostConfig", "VolumesFrom"),
}
_SIZES: Final = frozenset({"shm_size", "mem_reservation"})


def parse_size(text: str) -> int:
    """Bytes of a size such as `512m` or `2g`.

    Raises:
        ValueError: it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"'{text}' is no size: give one like 512m or 2g")
    return int(float(match[1]) * _UNITS[match[2].lower()])


class RegistryCredentials(BaseModel):
    """Who pulls images that are not public.

    Attributes:
        username: at the registry.
        password: or token.
        registry: `host` or `host:port`; None: that of the image.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    username: str
    password: str = Field(repr=False)
    registry: str | None = Field(default=None, validation_alias="registry_url")

    @model_validator(mode="before")
    @classmethod
    def _either_name(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            named = cast("Mapping[str, Any]", value)
            return {{"registry_url": "registry"}.get(key, key): item for key, item in named.items()}
        return value

    def as_auth(self, image: str) -> dict[str, str]:
        """As the engine takes it."""
        registry = self.registry or registry_of(image)
        return {"username": self.username, "password": self.password, "serveraddress": registry}


class DockerJobConfiguration(InfrastructureJobConfiguration):
    """What a container is started with.

    Attributes:
        image: of the container; None: headrace's own, of this version.
        registry_credentials: for images that are not public.
        image_pull_policy: when it is pulled; None: always for the tag `latest`, else if it is not there.
        networks: that the container is put into.
        network_mode: such as `host` or `none`.
        auto_remove: remove the container when it has ended.
        volumes: what is mounted, each as `source:target` or `source:target:ro`.
        mem_limit: such as `512m`.
        memswap_limit: of memory and swap together; -1: no limit.
        privileged: the container has the rights of its machine.
        user: of the container, as `name`, `uid` or `uid:gid`; None: the image's.
        container_create_kwargs: further options, by their names in the engine's API or by those of the Docker
            SDK for Python.
    """

    image: str | None = None
    registry_credentials: RegistryCredentials | None = None
    image_pull_policy: Literal["Always", "IfNotPresent", "IfPossible", "Never"] | None = None
    networks: list[str] = Field(default_factory=list)
    network_mode: str | None = None
    auto_remove: bool = False
    volumes: list[str] = Field(default_factory=list)
    mem_limit: str | None = None
    memswap_limit: str | None = None
    privileged: bool = False
    user: str | None = None
    container_create_kwargs: dict[str, Any] | None = None

    @field_validator("mem_limit", "memswap_limit")
    @classmethod
    def _known_size(cls, value: str | None) -> str | None:
        if value is not None and value != "-1":
            parse_size(value)
        return value

    @field_validator("volumes")
    @classmethod
    def _known_volumes(cls, value: list[str]) -> list[str]:
        for volume in value:
            if _VOLUME.fullmatch(volume) is None:
                raise ValueError(f"'{volume}' is no volume: give source:target or source:target:ro")
        return value

    @model_validator(mode="after")
    def _fits(self) -> DockerJobConfiguration:
        if self.networks and self.network_mode in ("host", "none"):
            raise ValueError(f"a container with network_mode '{self.network_mode}' is in no other networks")
        _more_options(self.container_create_kwargs or {})
        return self

    @property
    def image_name(self) -> str:
        """The image, whoever says it."""
        return self.image or default_image()

    @property
    def pull_policy(self) -> str:
        """When the image is pulled."""
        if self.image_pull_policy is not None:
            return self.image_pull_policy
        name = self.image_name
        if "@" in name:
            return "IfNotPresent"
        tag = name.rpartition("/")[2].partition(":")[2]
        return "Always" if tag in ("", "latest") else "IfNotPresent"

    @property
    def has_own_network(self) -> bool:
        """Whether the engine's machine is another one, seen from inside of the container."""
        mode = self.network_mode or ""
        return mode != "host" and not mode.startswith("container:")

    def reach_engine_host(self) -> None:
        """Have the container find a server on the engine's machine, if that is where the server is."""
        host, colon, port = self.env.get("HEADRACE_API_URL", "").rpartition(":")
        if self.has_own_network and colon and host in _LOCAL_HOSTS:
            self.env["HEADRACE_API_URL"] = f"{HOST_NAME}:{port}"


def container_body(configuration: DockerJobConfiguration) -> dict[str, Any]:
    """What the engine is asked to create."""
    labels = dict(configuration.labels)
    host: dict[str, Any] = {"Binds": configuration.volumes, "Privileged": configuration.privileged}
    if configuration.auto_remove:
        # Not left to the engine, which would take the exit code and the last lines with it.
        labels[AUTO_REMOVE] = "true"
    if configuration.mem_limit is not None:
        host["Memory"] = parse_size(configuration.mem_limit)
    if (limit := configuration.memswap_limit) is not None:
        host["MemorySwap"] = -1 if limit == "-1" else parse_size(limit)
    if mode := configuration.network_mode or next(iter(configuration.networks), None):
        host["NetworkMode"] = mode
    if configuration.env.get("HEADRACE_API_URL", "").startswith(f"{HOST_NAME}:"):
        host["ExtraHosts"] = [f"{HOST_NAME}:host-gateway"]
    body: dict[str, Any] = {
        "Image": configuration.image_name,
        "Cmd": shlex.split(configuration.command),
        "Env": [f"{name}={text}" for name, text in configuration.env.items()],
        "Labels": labels,
        "HostConfig": host,
    }
    if configuration.user is not None:
        body["User"] = configuration.user
    return _merged(body, _more_options(configuration.container_create_kwargs or {}))


def container_name(configuration: DockerJobConfiguration, number: int) -> str | None:
    """A name that the engine takes, of the job's; the `number`th try, from 0. None: there is none."""
    name = re.sub(r"[^a-zA-Z0-9_.-]+", "-", configuration.name or "").strip("-_.")
    if not name:
        return None
    return f"{name}-{number}" if number else name


def _more_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options by their names in the engine's API.

    Raises:
        ValueError: one is not known.
    """
    body: dict[str, Any] = {}
    for name, value in given.items():
        if name[:1].isupper():
            body = _merged(body, {name: value})
        elif name == "extra_hosts":
            is_named = hasattr(value, "items")
            listed = [f"{host}:{value[host]}" for host in value] if is_named else [str(one) for one in value]
            body = _merged(body, {"HostConfig": {"ExtraHosts": listed}})
        elif name in _OPTIONS:
            section, option = _OPTIONS[name]
            if name in _SIZES and isinstance(value, str):
                value = parse_size(value)
            if name == "entrypoint" and isinstance(value, str):
                value = shlex.split(value)
            body = _merged(body, {section: {option: value}} if section else {option: value})
        else:
            near = get_close_matches(name, [*_OPTIONS, "extra_hosts"], n=1)
            hint = f"did you mean '{near[0]}'?" if near else "the engine's own names are taken as they are"
            raise ValueError(f"container_create_kwargs: '{name}' is no option of a container; {hint}")
    return body


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both; of what is in both, mappings are merged, lists joined, and of all else `over` wins."""
    merged = dict(under)
    for name, value in over.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[name] = _merged(cast("Mapping[str, Any]", old), cast("Mapping[str, Any]", value))
        elif name in ("Binds", "ExtraHosts", "Env") and isinstance(old, list) and isinstance(value, list):
            merged[name] = [*cast("list[Any]", old), *cast("list[Any]", value)]
        else:
            merged[name] = value
    return merged
