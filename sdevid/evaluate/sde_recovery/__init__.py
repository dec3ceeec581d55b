"""Is the SDE of tracked motion the true one? Trackers, estimators, and their metrics."""
