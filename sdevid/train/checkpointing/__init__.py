"""Checkpoints of a run: written while training goes on, kept, verified, carried on from."""
