#!/bin/sh
# Installs hesspipe with its pipeline into /opt/hesspipe, for Dockerfile and apptainer.def, in the
# folder of the sources.
#
#     sh envs/install.sh packages    all that hesspipe needs: a layer that new code leaves as it is
#     sh envs/install.sh hesspipe    hesspipe itself
#
# $TORCH_OPTIONS are options of pip for torch alone.
set -eu
pip="/opt/hesspipe/bin/pip --disable-pip-version-check"
pins="--no-cache-dir --constraint envs/constraints.txt --constraint envs/kubernetes.txt"
case "$1" in
packages)
    python3 -m venv /opt/hesspipe
    # setuptools builds hesspipe without a network. Its old form is a part of new environments.
    # shellcheck disable=SC2086
    $pip install $pins --upgrade setuptools
    # shellcheck disable=SC2086
    $pip install $pins ${TORCH_OPTIONS:-} torch
    /opt/hesspipe/bin/python -c '
import tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
print(*project["dependencies"], *extras["workflow"], *extras["kubernetes"], sep="\n")
' > /tmp/needed.txt
    # shellcheck disable=SC2086
    $pip install $pins --requirement /tmp/needed.txt
    # Snakemake's executor for Kubernetes installs the plugin of the storage in each pod: from here.
    # shellcheck disable=SC2086
    $pip download $pins --no-deps --dest /opt/hesspipe/wheels snakemake-storage-plugin-fs
    # The packages' own tests: 250 MB.
    find /opt/hesspipe/lib/python3*/site-packages -mindepth 2 -type d -name tests -prune -exec rm -rf {} +
    rm -rf /opt/hesspipe/lib/python3*/site-packages/torch/test /tmp/needed.txt
    ;;
hesspipe)
    $pip install --no-cache-dir --no-deps --no-build-isolation '.[workflow,kubernetes]'
    $pip check
    ;;
*)
    echo "usage: sh envs/install.sh packages|hesspipe" >&2
    exit 2
    ;;
esac
