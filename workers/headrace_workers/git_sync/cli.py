"""`headrace git-sync`."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from headrace.cli.failures import CliError, ExitCode
from headrace.cli.options import Output, Quiet
from headrace.cli.projects import Environment, YesTo

if TYPE_CHECKING:
    from headrace.settings import Settings
    from headrace_workers.git_sync.applying import ApplyOptions
    from headrace_workers.git_sync.store import Target
    from headrace_workers.git_sync.sync import GitSync, SyncOptions

__all__ = ["ls", "start"]

DEFAULT_POLL_SECONDS = 60.0


def start(
    repository: Annotated[
        str,
        Parameter(name="REPOSITORY", help="Its address, as for `git clone`, or a folder of this machine."),
    ],
    /,
    *,
    branch: Annotated[str, Parameter(name=["--branch", "-b"], help="The branch that is followed.")] = "main",
    directory: Annotated[
        str, Parameter(help="Folder of headrace.yaml in the repository; else its top.")
    ] = "",
    env: Environment = None,
    yes_to: YesTo = None,
    name: Annotated[
        tuple[str, ...],
        Parameter(
            name=["--name", "-n"], help="Only these deployments: with * for any text. Repeatable. Else all."
        ),
    ] = (),
    prune: Annotated[
        bool, Parameter(help="Delete deployments that this has made and the file has no more.")
    ] = False,
    include_submodules: Annotated[
        bool, Parameter(help="Fetch the repositories that it refers to as well.")
    ] = False,
    access_token_file: Annotated[
        Path | None, Parameter(help="File with a token that may read the repository over https.")
    ] = None,
    secret_file: Annotated[
        Path | None, Parameter(help="File with the secret that the webhook is set up with.")
    ] = None,
    host: Annotated[str, Parameter(help="Address that notices come to; any but loopback takes a secret.")] = (
        "127.0.0.1"
    ),
    port: Annotated[
        int, Parameter(validator=Number(gte=0, lte=65535), help="Port of it; 0 takes any free one.")
    ] = 8090,
    webhook: Annotated[bool, Parameter(negative="--no-webhook", help="Listen for notices of pushes.")] = True,
    poll_seconds: Annotated[
        float | None,
        Parameter(
            validator=Number(gte=1),
            help="Look so often too, without a notice; every 60 seconds with --no-webhook.",
        ),
    ] = None,
    timeout_seconds: Annotated[
        float,
        Parameter(validator=Number(gt=0), help="How long applying a commit may take, build steps included."),
    ] = 3600.0,
    run_once: Annotated[bool, Parameter(help="Apply what the branch is at now, and end.")] = False,
) -> int:
    """Deploy what is pushed: follow a branch, and apply its headrace.yaml.

    Each commit is applied as `headrace deploy --all` would, and is the version of what it deploys. A push is
    known by a notice of GitHub, GitLab, Bitbucket or Gitea, sent to /webhook, or by looking. A commit that
    cannot be applied is told, and tried again until there is a newer one. The code that is pushed is loaded
    on this machine, in a process of its own. Ctrl-C, or SIGTERM, lets it finish what it applies.
    """
    from headrace.settings import get_current_settings
    from headrace_workers.git_sync.applying import ApplyOptions
    from headrace_workers.git_sync.store import Target
    from headrace_workers.git_sync.sync import SyncOptions
    from headrace_workers.lines import LineWriter

    listens = webhook and not run_once
    secret = _text_of(secret_file, "secret")
    if listens and secret is None and not _is_loopback(host):
        raise CliError(
            f"Whoever reaches {host} could have commits applied.",
            "Say --secret-file FILE, with the secret that the webhook is set up with.",
            code=ExitCode.USAGE,
        )
    if secret is not None and not listens:
        raise CliError("--secret-file is for notices, which are not listened for here.", code=ExitCode.USAGE)
    if poll_seconds is None and not webhook:
        poll_seconds = DEFAULT_POLL_SECONDS
    address, credentials = _repository(repository, _text_of(access_token_file, "access token"))
    settings = get_current_settings()
    writer = LineWriter()
    program = _Program(
        Target(address, branch, directory.strip("/"), env or ""),
        ApplyOptions(credentials, include_submodules, name, prune, timeout_seconds, yes_to or ""),
        SyncOptions(is_once=run_once, poll_seconds=poll_seconds),
        (host, port) if listens else None,
        secret,
        writer,
    )
    try:
        return asyncio.run(program.run(settings, run_once=run_once))
    finally:
        writer.close()


async def ls(*, output: Output = "table", quiet: Quiet = False) -> None:
    """List what was synced from this home, and what came of it last."""
    from headrace.cli.output import Listing, emit_list, iterate
    from headrace.settings import get_current_settings
    from headrace_workers.git_sync.store import State, stored_states

    listing: Listing[State] = Listing(
        headers=("ID", "REPOSITORY", "BRANCH", "APPLIED", "LAST", "AT"),
        row=lambda state: (
            state.target.id,
            state.target.repository,
            state.target.branch,
            state.applied_commit[:12],
            "" if state.last is None else "applied" if state.last.is_applied else state.last.message,
            "" if state.last is None else state.last.at,
        ),
        key=lambda state: state.target.id,
        json=lambda state: state.as_json(),
        none="Nothing was synced from this home. See `headrace git-sync start --help`.",
        shrink=("REPOSITORY", "LAST"),
    )
    states = stored_states(get_current_settings().home)
    await emit_list(iterate(states), listing, output, quiet=quiet)


@dataclass(frozen=True, slots=True)
class _Program:
    """The process."""

    target: Target
    apply_options: ApplyOptions
    sync_options: SyncOptions
    address: tuple[str, int] | None
    secret: str | None
    tell: Callable[[str], None]

    async def run(self, settings: Settings, *, run_once: bool) -> int:
        from headrace_workers.git_sync.applying import Applier
        from headrace_workers.git_sync.store import StateStore
        from headrace_workers.git_sync.sync import GitSync
        from headrace_workers.service import child_environment

        # What was applied elsewhere, or otherwise, is not applied here.
        way = json.dumps([settings.api_url, settings.deploy_environment, *self.apply_options.way()])
        store = StateStore(settings.home, self.target, way)
        with store.held():
            applier = Applier(
                self.target, store.folder, self.apply_options, child_environment(settings), self.tell
            )
            sync = GitSync(applier, store, self.sync_options, self.tell)
            loop = asyncio.get_running_loop()
            for signum in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(signum, sync.leave)
            if run_once:
                return ExitCode.OK if await sync.look() else ExitCode.FAILED
            async with self._listening(sync):
                await sync.run()
        self.tell("Left.")
        return ExitCode.OK

    @contextlib.asynccontextmanager
    async def _listening(self, sync: GitSync) -> AsyncGenerator[None]:
        from headrace_workers.git_sync.web import WEBHOOK_PATH, SyncServer

        where = f"{self.target.branch} of {self.target.repository}"
        if self.address is None:
            self.tell(f"Following {where}. Ctrl-C stops it.")
            yield
            return
        host, port = self.address
        server = SyncServer(host, port, sync, self.secret)
        try:
            await server.__aenter__()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else error.strerror
            raise CliError(
                f"Notices cannot come to {host}:{port}: {why}.", "Choose another --port, or --no-webhook."
            ) from None
        shown = f"[{host}]" if ":" in host else host
        self.tell(
            f"Following {where}; notices to http://{shown}:{server.port}{WEBHOOK_PATH}. Ctrl-C stops it."
        )
        try:
            yield
        finally:
            await server.__aexit__()


def _repository(text: str, token: str | None) -> tuple[str, dict[str, str] | None]:
    """The address, without a login in it, and the credentials."""
    from headrace.deployments.git import without_user

    address, inline = without_user(text)
    host, colon, _ = address.partition(":")
    if "://" not in address and not (colon and "/" not in host):
        path = Path(address).expanduser().resolve()
        if not path.exists():
            raise CliError(
                f"{path} is not there.", "Give the address of a repository.", code=ExitCode.NOT_FOUND
            )
        address = str(path)
    if token is not None:
        if not address.startswith("http"):
            raise CliError("--access-token-file is for addresses of http and https.", code=ExitCode.USAGE)
        return address, {"access_token": token}
    return address, inline


def _text_of(path: Path | None, what: str) -> str | None:
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CliError(f"The {what} cannot be read from {path}: {why}.", code=ExitCode.USAGE) from None
    if not text:
        raise CliError(f"{path} holds no {what}: it is empty.", code=ExitCode.USAGE)
    return text


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
