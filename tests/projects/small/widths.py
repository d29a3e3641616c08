"""Sizes of the network."""

WIDTH = 4
