"""Sizes of the network."""

WIDTH = 12
