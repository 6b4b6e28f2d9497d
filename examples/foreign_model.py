"""Explain a JAX model that sgpa_jax has never seen: any function of a mask per player, here of words in a bag."""

import jax
import jax.numpy as jnp

import sgpa_jax as sgpa

words = ("the", "film", "was", "not", "bad")
embedding_pd = jax.random.normal(jax.random.key(1), (len(words), 8))


def sentiment(masks_cp: jax.Array) -> jax.Array:
    """Return how a small network likes each coalition of words, float[C]."""
    return jnp.tanh(jnp.where(masks_cp[:, :, None], embedding_pd, 0.0).sum(axis=1)).sum(axis=-1)


result = sgpa.estimate(sgpa.Game(sentiment, len(words)), key=jax.random.key(0))
for word, value in zip(words, result.values_pk[:, 0], strict=True):
    print(f"{word:>5} {value:+.3f}")
