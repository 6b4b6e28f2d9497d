"""Scores of outputs against scikit-learn, numbers worked out by hand, and their definitions."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr
from sklearn.feature_extraction.text import TfidfVectorizer

from sgpa_jax.errors import UsageError
from sgpa_jax.games import Game
from sgpa_jax.games.game import Reference
from sgpa_jax.games.scores import (
    divergence,
    embedding_cosine,
    log_odds,
    log_prob,
    mean_log_prob,
    tfidf_cosine,
    token_log_probs,
    words,
)
from sgpa_jax.players import all_coalitions

NOTHING = Reference(None, None)
TOKEN_CR = np.array([[-1.0, -2.0, -3.0], [-0.5, 0.0, -4.0]], np.float32)
TEXTS = ["the red lamp, the red one", "The blue lamp", "", "a lamp or 2 lamps: the RED one", "no idea", "the red lamp"]


def test_log_probabilities():
    assert log_prob(TOKEN_CR, NOTHING).tolist() == [[-6, -1, -2, -3], [-4.5, -0.5, 0, -4]]
    assert mean_log_prob(TOKEN_CR, NOTHING).tolist() == [[-2, -1, -2, -3], [-1.5, -0.5, 0, -4]]
    assert token_log_probs(TOKEN_CR, NOTHING).tolist() == TOKEN_CR.tolist()


def test_log_odds_contrast_two_responses():
    assert log_odds(TOKEN_CR, NOTHING, n_first=1).tolist() == [4.0, 3.5]
    assert log_odds(TOKEN_CR, NOTHING, n_first=2).tolist() == [0.0, 3.5]
    for n_first in (0, 3):
        with pytest.raises(UsageError, match="at least one of each"):
            log_odds(TOKEN_CR, NOTHING, n_first=n_first)


def _cosines(documents, **settings):
    """By scikit-learn: of every document and the first."""
    vectors = TfidfVectorizer(**settings).fit_transform(documents).toarray()
    return vectors @ vectors[0]


def test_tfidf_of_texts_is_scikit_learns():
    found = tfidf_cosine(TEXTS, Reference(TEXTS[0], TEXTS))
    np.testing.assert_allclose(found, _cosines(TEXTS), atol=1e-6)
    assert found[0] == pytest.approx(1) and found[2] == 0 and len(set(found.tolist())) == 5


def test_tfidf_of_tokens_is_scikit_learns():
    rng = np.random.default_rng(0)
    documents = [[*rng.integers(9, size=n).tolist(), *[(1, 2)] * (n % 3)] for n in (7, 4, 12, 1, 7)]
    found = tfidf_cosine(documents, Reference(documents[0], documents), terms=list)
    np.testing.assert_allclose(
        found, _cosines(documents, analyzer=lambda tokens: [str(token) for token in tokens]), atol=1e-6
    )


def test_tfidf_by_hand():
    # Of 2 responses, 2 hold "on" and 1 each of the others: weights 1 and 1 + log(3 / 2).
    rare = 1 + math.log(1.5)
    found = tfidf_cosine(["on off", "on on up"], Reference("on off", ["on off", "on on up"]))
    lengths = math.sqrt(1 + rare**2), math.sqrt(4 + rare**2)
    np.testing.assert_allclose(found, [1, 2 / (lengths[0] * lengths[1])], rtol=1e-6)


def test_a_term_that_the_corpus_lacks_is_the_rarest():
    found = tfidf_cosine(["on up"], Reference("on off", ["on off", "on"]))
    on, off, up = 1.0, 1 + math.log(1.5), 1 + math.log(3)
    np.testing.assert_allclose(found, [1 / (math.hypot(on, up) * math.hypot(on, off))], rtol=1e-6)


def test_nothing_is_like_an_empty_response():
    assert tfidf_cosine(["", "on"], Reference("", ["", "on"])).tolist() == [0, 0]


def test_words_are_scikit_learns():
    text = "Ökonomie im 21. Jahrhundert: it's a_b 5 x foo-bar"
    assert words(text) == TfidfVectorizer().build_analyzer()(text)


@pytest.fixture
def texts_game():
    """Three players; coalition c answers with text c mod 6, everybody together with the fourth."""
    texts = [TEXTS[i % 6] for i in (1, 2, 5, 4, 2, 4, 1, 3)]

    def fn(masks_cp):
        return [texts[mask @ [1, 2, 4]] for mask in np.asarray(masks_cp)]

    return Game(fn, 3, score=tfidf_cosine, jit=False), texts


def test_a_frozen_corpus_does_not_depend_on_what_is_asked_for_later(texts_game):
    game, texts = texts_game
    masks_cp = all_coalitions(3)
    first = game.values(masks_cp[:3])[:, 0]
    np.testing.assert_allclose(first, _cosines([texts[7], *texts[:3]])[1:], atol=1e-6)
    assert game.values(masks_cp)[:3, 0].tolist() == first.tolist()
    # Scored again, all that is known by then is the corpus.
    again = game.rescore(tfidf_cosine).values(masks_cp)[:, 0]
    np.testing.assert_allclose(again, _cosines([texts[7], *texts[:7]])[[1, 2, 3, 4, 5, 6, 7, 0]], atol=1e-6)


def test_per_phase_every_request_is_a_corpus_of_its_own(texts_game):
    game, texts = texts_game
    game = game.rescore(functools.partial(tfidf_cosine, per_phase=True))
    masks_cp = all_coalitions(3)
    for rows in ([0, 1, 2], [3, 1], [1, 1, 4]):
        expected = _cosines([texts[7], *(texts[row] for row in rows)])[1:]
        np.testing.assert_allclose(game.values(masks_cp[rows])[:, 0], expected, atol=1e-6)
    # The full coalition stands in its corpus once more where it is asked for.
    expected = _cosines([texts[7], texts[7], texts[0], texts[1]])[1:]
    np.testing.assert_allclose(game.values(masks_cp[[7, 0, 1]])[:, 0], expected, atol=1e-6)


def test_embeddings():
    vectors = {"red": [3.0, 4.0], "blue": [4.0, -3.0], "reddish": [6.0, 8.0], "": [0.0, 0.0], "pink": [1.0, 0.0]}
    found = embedding_cosine(
        ["red", "blue", "reddish", "", "pink"],
        Reference("red", None),
        embed=lambda texts: np.array([vectors[text] for text in texts]),
    )
    np.testing.assert_allclose(found, [1, 0, 1, 0, 0.6], atol=1e-6)


@pytest.fixture
def logits_crv():
    return (3 * np.random.default_rng(1).standard_normal((5, 4, 30))).astype(np.float32)


@pytest.mark.parametrize("rows", [1, 3, 8])
def test_divergences_are_those_of_scipy(logits_crv, rows):
    p = np.exp(log_softmax(logits_crv, axis=-1))
    reference = Reference(logits_crv[2], None)
    kl = divergence(logits_crv, reference, rows=rows)
    np.testing.assert_allclose(kl, -rel_entr(p[2][None], p).sum(axis=-1).mean(axis=-1), atol=1e-5)
    js = divergence(logits_crv, reference, kind="js", rows=rows)
    middle = (p + p[2][None]) / 2
    expected = -(rel_entr(p[2][None], middle) + rel_entr(p, middle)).sum(axis=-1).mean(axis=-1) / 2
    np.testing.assert_allclose(js, expected, atol=1e-6)
    assert kl.dtype == np.float32 and abs(kl[2]) < 1e-6 and abs(js[2]) < 1e-6


def test_divergences_from_hidden_states_are_those_of_their_logits(logits_crv):
    hidden_crd, table_vd = logits_crv[:, :, :8], jnp.asarray(logits_crv[0].T.repeat(2, axis=1))
    logits = np.einsum("crd,vd->crv", hidden_crd, np.asarray(table_vd))
    for kind in ("kl", "js"):
        found = divergence(hidden_crd, Reference(hidden_crd[0], None), kind=kind, table_vd=table_vd)
        np.testing.assert_allclose(found, divergence(logits, Reference(logits[0], None), kind=kind), atol=2e-5)


def test_divergences_stay_finite_where_nothing_is_certain_to_happen():
    logits = np.array([[[0.0, -500.0]], [[-500.0, 0.0]]], np.float32)
    found = divergence(logits, Reference(logits[0], None))
    np.testing.assert_allclose(found, [0, -500], atol=1e-4)
    np.testing.assert_allclose(divergence(logits, Reference(logits[0], None), kind="js"), [0, -np.log(2)], atol=1e-6)
    with pytest.raises(UsageError, match="js"):
        divergence(logits, Reference(logits[0], None), kind="jsd")


def test_the_divergences_of_a_game_are_lowered_for_tpus(logits_crv):
    from sgpa_jax.games.scores import _divergence

    run = functools.partial(_divergence, kind="js", rows=2)
    exported = jax.export.export(jax.jit(run), platforms=["tpu"])(logits_crv, logits_crv[0], None)
    assert exported.platforms == ("tpu",)
