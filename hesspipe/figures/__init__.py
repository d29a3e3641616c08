"""Figures: one module each, from a table to a matplotlib Figure; nothing is computed here."""
