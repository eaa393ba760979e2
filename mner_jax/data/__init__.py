"""Text and images: from files to batches of arrays. Nothing here uses JAX."""
