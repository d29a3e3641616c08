#!/bin/sh
# Installs hesspipe with its pipeline into /opt/hesspipe: run by Dockerfile and by apptainer.def, in
# the folder of the sources. $TORCH_OPTIONS are options of pip for torch alone.
set -eu
python3 -m venv /opt/hesspipe
pip=/opt/hesspipe/bin/pip
pins="--constraint envs/constraints.txt --constraint envs/kubernetes.txt"
# shellcheck disable=SC2086
$pip install --no-cache-dir $pins ${TORCH_OPTIONS:-} torch
# shellcheck disable=SC2086
$pip install --no-cache-dir $pins '.[workflow,kubernetes]'
# Snakemake's executor for Kubernetes installs the plugin of the storage in each pod: from here.
# shellcheck disable=SC2086
$pip download --no-cache-dir --no-deps $pins --dest /opt/hesspipe/wheels snakemake-storage-plugin-fs
