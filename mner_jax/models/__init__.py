"""The Flax modules and losses of 2M-NER, one concept a file."""
