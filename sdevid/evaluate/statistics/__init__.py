"""Estimates, intervals and scores of samples; nothing here knows a model."""
