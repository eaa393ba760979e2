"""Measurements of speed and memory: `python -m mner_jax.benchmark`."""
