"""The tables: rows, runs, statistics; python -m mner_jax.tables NAME."""
