"""Ensembles of futures beside baselines, scored in the source's units on any video."""
