"""Networks: architectures, checkpoints, evaluation and training."""
