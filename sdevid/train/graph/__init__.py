"""Micro-steps of training as CUDA graphs."""
