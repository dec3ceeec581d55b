"""Mathematics of SDEs: noise, solvers, path KL. Knows nothing of video."""
