"""One file per experiment; train.py --config=mner_jax/configs/NAME.py."""
