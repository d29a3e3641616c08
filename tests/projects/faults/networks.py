"""A network and data of a user."""

import torch
from torch import nn
from widths import WIDTH


def build():
    """Build a network of one hidden layer."""
    return nn.Sequential(nn.Linear(3, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))


def points(number):
    """Draw inputs, and a smooth function of them."""
    inputs = torch.randn(number, 3)
    return inputs, inputs.sum(1, keepdim=True).sin()
