"""Density and largest eigenvalues of the untrained transformer, in plain Python.

python examples/transformer/spectrum.py     (minutes on two cores)
"""

import torch
from network import Transformer
from text import passages
from torch import nn

import hesspipe

torch.manual_seed(0)
model = Transformer(length=32, width=160, num_heads=4, num_blocks=4)
inputs, targets, *_ = passages(num_train=64, num_test=1, length=32, seed=0)

# float32 is enough: signs near zero are not counted. Batches limit the memory, not the result.
batches = list(zip(inputs.split(16), targets.split(16), strict=True))
objective = hesspipe.Objective(model, nn.CrossEntropyLoss(), batches, dtype=torch.float32)
density = hesspipe.density(objective, num_probes=2, num_steps=30, progress=True)
pairs = hesspipe.eigenpairs(objective, num_largest=5, tolerance=1e-4, progress=True)

print(f"{objective.num_parameters:,} parameters")
for eigenvalue, residual in zip(pairs.eigenvalues, pairs.residual_norms, strict=True):
    print(f"eigenvalue {eigenvalue:9.4f}, true residual {residual:.0e}")
above = density.count(low=float(pairs.eigenvalues[-1]) / 100)
print(f"above 1 % of the largest: {above.low:,} to {above.high:,} eigenvalues")
