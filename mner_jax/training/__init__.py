"""Training: the loop, one update, logs, being stopped."""
