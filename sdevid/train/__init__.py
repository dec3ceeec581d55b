"""Training: the loop, the engine under it, and what it reports."""
