"""The law of a latent of particles: as the model has it, and as its films show it."""
