"""What a run writes beside its checkpoints: metrics, samples, its starts and its ending."""
