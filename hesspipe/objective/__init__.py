"""The loss L(theta) of a model over data, as a function of one flat parameter vector."""
