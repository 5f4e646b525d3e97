"""Project files to begin with: `headrace init`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["RECIPES", "Recipe", "render"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way of getting code to where it runs.

    Attributes:
        help: one line.
        pull: the file's `pull:`, with `{field}` for what is asked.
        fields: what is asked: a name, and what it is.
        is_quoted: the text of `pull` has quotes around the fields already.
        is_image: runs are started in an image that is built and pushed when deploying.
    """

    help: str
    pull: str
    fields: Mapping[str, str]
    is_quoted: bool = False
    is_image: bool = False


def _in_image(recipe: Recipe) -> Recipe:
    """The recipe with an image of what the project needs, and the code from where it said."""
    return replace(
        recipe,
        help=f"{recipe.help.removesuffix('.')}, in an image of this folder.",
        fields={"image_name": "Name of the image, with its registry", **recipe.fields},
        is_image=True,
    )


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


_RECIPES: Final[Mapping[str, Recipe]] = {
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

RECIPES: Final[Mapping[str, Recipe]] = {
    **_RECIPES,
    # The working folder of the image is where the code is.
    "docker": Recipe(
        "The code is in an image of this folder.",
        "pull: []\n",
        {"image_name": "Name of the image, with its registry"},
        is_image=True,
    ),
    **{f"docker-{name}": _in_image(_RECIPES[name]) for name in ("git", "s3", "gcs", "azure")},
}

_IMAGE: Final = """\
# Run where you deploy, with the container engine there. Leave `push:` out for workers of this machine.
build:
  - headrace.deployments.steps.build_docker_image:
      id: build-image
      image_name: {image_name}
      # Made up: headrace's own image, this folder and its requirements.txt. Or the path of your own.
      dockerfile: auto
push:
  - headrace.deployments.steps.push_docker_image:
      image_name: "{{{{ build-image.image_name }}}}"
      tag: "{{{{ build-image.tag }}}}"

"""

_JOB_VARIABLES: Final = """\
      job_variables:
        image: "{{ build-image.image }}"
"""

_FILE: Final = """\
# Deployments of this project: `headrace deploy --all`. Every key: docs/deploying.md
name: {name}

{build}# Run where a flow run begins, to get the code there. `build:` and `push:` run where you deploy.
{pull}
deployments:
  - name: default
    # path/file.py:function
    entrypoint: {entrypoint}
    work_pool:
      name: default
{job_variables}    # schedules:
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
    quoted = {key: json.dumps(value) for key, value in fields.items()}
    return _FILE.format(
        name=json.dumps(name),
        build=_IMAGE.format(**quoted) if recipe.is_image else "",
        pull=recipe.pull.format(**(fields if recipe.is_quoted else quoted)),
        entrypoint=json.dumps(entrypoint),
        job_variables=_JOB_VARIABLES if recipe.is_image else "",
    )
