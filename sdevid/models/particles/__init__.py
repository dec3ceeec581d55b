"""A latent of particles: things with places in pixels, moved by an SDE and drawn over a ground."""
