"""Stochastic Moving MNIST: futures of digits, read by a small network."""
