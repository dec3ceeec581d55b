"""The networks: frames to features, features to a latent SDE, latent paths to frames."""
