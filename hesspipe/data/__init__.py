"""Datasets: clusters, MNIST, CIFAR-10, and the user's own."""
