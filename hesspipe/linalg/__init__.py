"""Numerical linear algebra on symmetric operators, matrix-free."""
