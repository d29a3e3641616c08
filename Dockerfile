# An image with hesspipe and everything that the pipeline runs, in the versions of
# envs/constraints.txt: docs/kubernetes.md.
#
#     docker build --tag hesspipe --build-arg TORCH_OPTIONS="--index-url INDEX" .
#
# INDEX is that of the builds of torch for the CPUs or GPUs of your cluster; without it pip takes its
# default, for CUDA.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
RUN apt-get update \
 && apt-get install --yes --no-install-recommends git rsync \
 && rm -rf /var/lib/apt/lists/*
# The packages are a layer of their own, which is built and sent once for all versions of the code.
COPY pyproject.toml /src/
COPY envs /src/envs
ARG TORCH_OPTIONS=""
RUN cd /src && TORCH_OPTIONS="${TORCH_OPTIONS}" sh envs/install.sh packages
COPY . /src
RUN cd /src && sh envs/install.sh hesspipe && rm -rf /src
# Users that the image does not know (--user 1000:1000, runAsUser) have no name and no home of theirs.
RUN mkdir --mode 1777 /home/hesspipe
# Pods install Snakemake's storage plugin from /opt/hesspipe/wheels, without a network.
ENV PATH=/opt/hesspipe/bin:${PATH} USER=hesspipe HOME=/home/hesspipe \
    PIP_NO_INDEX=1 PIP_NO_DEPS=1 PIP_FIND_LINKS=/opt/hesspipe/wheels
WORKDIR /workdir
