"""Steps that a deployment names: to build, to push, and to fetch its code where it runs."""

from headrace.deployments.steps.docker import build_docker_image, push_docker_image
from headrace.deployments.steps.git import git_clone
from headrace.deployments.steps.run import StepExecutionError, run_step, run_steps
from headrace.deployments.steps.shell import pip_install_requirements, run_shell_script
from headrace.deployments.steps.storage import pull_from_remote_storage, set_working_directory

__all__ = [
    "StepExecutionError",
    "build_docker_image",
    "git_clone",
    "pip_install_requirements",
    "pull_from_remote_storage",
    "push_docker_image",
    "run_shell_script",
    "run_step",
    "run_steps",
    "set_working_directory",
]
