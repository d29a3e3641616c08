"""Datasets: inputs and targets, to train on and held out.

- `hesspipe.data.dataset`: `Dataset`, and its files
- `hesspipe.data.make`: a dataset of any kind, from its entry in config.yaml
- `hesspipe.data.clusters`: Gaussian clusters, one per class
- `hesspipe.data.mnist`: handwritten digits, embedded, from a folder or by download
- `hesspipe.data.cifar10`: photographs, from a folder or by download
- `hesspipe.data.user`: data from a user's function or safetensors file
- `hesspipe.data.download`: downloads with a checksum
- `hesspipe.data.published`: comparison with published checksums
"""
