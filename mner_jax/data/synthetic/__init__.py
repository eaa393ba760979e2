"""A synthetic corpus with pictures, drawn by this code from a seed."""
