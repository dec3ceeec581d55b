"""em_trajectory in one launch forward and one backward, in Triton."""
