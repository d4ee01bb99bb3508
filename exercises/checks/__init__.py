"""The checks of every exercise. Reading them gives hints away."""
