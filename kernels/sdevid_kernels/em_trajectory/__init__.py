"""A whole Euler-Maruyama chain with SiLU networks as drift and control."""
