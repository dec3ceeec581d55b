"""Neural stochastic differential equations for video."""

__version__ = "0.1.0"
