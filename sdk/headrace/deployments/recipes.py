"""Project files to begin with: `headrace init`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["RECIPES", "Recipe", "render"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way of getting code to where it runs.

    Attributes:
        help: one line.
        pull: the file's `pull:`, with `{field}` for what is asked.
        fields: what is asked: a name, and what it is.
        is_quoted: the text has quotes around the fields already.
    """

    help: str
    pull: str
    fields: Mapping[str, str]
    is_quoted: bool = False


def _store(step_url: str, bucket: str) -> Recipe:
    return Recipe(
        f"The code is copied to {bucket} by your CI, and fetched where it runs.",
        f"""pull:
  - headrace.deployments.steps.pull_from_remote_storage:
      url: {step_url}
""",
        {"bucket": f"Name of {bucket}", "folder": "Folder in it"},
        is_quoted=True,
    )


RECIPES: Final[Mapping[str, Recipe]] = {
    "local": Recipe(
        "The code is in this folder, on the machine that runs it.",
        """pull:
  - headrace.deployments.steps.set_working_directory:
      directory: {directory}
""",
        {"directory": "Folder of the code"},
    ),
    "git": Recipe(
        "The code is cloned where it runs.",
        """pull:
  - headrace.deployments.steps.git_clone:
      repository: {repository}
      branch: {branch}
      # A private repository: let the workers' environment hold a token.
      # access_token: "{{{{ $GIT_TOKEN }}}}"
""",
        {"repository": "Address of the repository", "branch": "Branch"},
    ),
    "s3": _store('"s3://{bucket}/{folder}"', "an S3 bucket"),
    "gcs": _store('"gs://{bucket}/{folder}"', "a Google Cloud Storage bucket"),
    "azure": _store('"az://{bucket}/{folder}"', "an Azure Blob container"),
}

_FILE: Final = """\
# Deployments of this project: `headrace deploy --all`. Every key: docs/deploying.md
name: {name}

# Run where a flow run begins, to get the code there. `build:` and `push:` run where you deploy.
{pull}
deployments:
  - name: default
    # path/file.py:function
    entrypoint: {entrypoint}
    work_pool:
      name: default
    # schedules:
    #   - cron: "0 2 * * *"
    #     timezone: Europe/Oslo
"""


def render(recipe: Recipe, name: str, fields: Mapping[str, str], entrypoint: str) -> str:
    """The file of a project.

    Args:
        recipe: which.
        name: of the project.
        fields: a text for each of the recipe's fields.
        entrypoint: of the first deployment.
    """
    quoted = {key: value if recipe.is_quoted else json.dumps(value) for key, value in fields.items()}
    pull = recipe.pull.format(**quoted)
    return _FILE.format(name=json.dumps(name), pull=pull, entrypoint=json.dumps(entrypoint))
