#!/bin/sh
# podman.sh: the container engine of the tests of Docker workers, from the distribution's own packages.
set -eu

give_up() {
    echo "podman is missing ($1): the tests with containers are skipped"
    exit 1
}

has_all() { command -v podman >/dev/null 2>&1 && command -v runc >/dev/null 2>&1; }

has_all && exit 0
command -v apt-get >/dev/null 2>&1 || give_up "this is no Debian: install podman and runc by hand"
[ "$(id -u)" = 0 ] || give_up "only root may install packages: apt-get install podman runc"
echo "Installing podman and runc"
timeout 60 apt-get install -y -qq --no-install-recommends podman runc >/dev/null 2>&1 ||
    { timeout 60 apt-get update -qq >/dev/null 2>&1 &&
        timeout 60 apt-get install -y -qq --no-install-recommends podman runc >/dev/null 2>&1; } ||
    give_up "apt-get install failed"
has_all || give_up "it is not there after all"
