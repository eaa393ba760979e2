"""A synthetic corpus with pictures, drawn by this code from a seed.

`names.json`, `shared_names.json`, `templates.json` and `drawings.json` hold
what is drawn from; `lexicon.py` explains the first three, `pictures.py` the
last.
"""
