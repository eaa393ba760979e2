"""mner_jax: 2M-NER, multilingual and multimodal named entities, in JAX."""
