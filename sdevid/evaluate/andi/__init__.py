"""The Anomalous Diffusion Challenge 2: motion read off tracks, scored by the challenge's code."""
