"""Generating video from a trained model and writing it: mp4, GIF, grids, arrays."""
