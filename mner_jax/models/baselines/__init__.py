"""What the tables compare 2M-NER with."""
