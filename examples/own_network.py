"""All eigenvalues of the Hessian of your own network. Change the data and the model."""

import torch
from torch import nn

import hesspipe

torch.manual_seed(0)
inputs, targets = torch.randn(500, 20), torch.randint(3, (500,))
model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 3))

objective = hesspipe.Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
spectrum = hesspipe.spectrum(objective)
spectrum.plot().figure.savefig("own_spectrum.png")

print(f"{objective.num_parameters} parameters, and as many eigenvalues:")
signs = spectrum.num_negative, spectrum.num_zero, spectrum.num_positive
print("{} negative, {} zero, {} positive".format(*signs))
print("the largest:", ", ".join(f"{value:.3g}" for value in spectrum.eigenvalues[-5:].flip(0)))
