"""The authors' game against the slow and obvious way: a 16-bit file for each coalition, answered on its own."""

from pathlib import Path

import jax
import numpy as np
import pytest
import sgpa_checkpoints
import soundfile
from sklearn.feature_extraction.text import TfidfVectorizer

from sgpa_jax.align import Alignment, Word
from sgpa_jax.audio import Clip, read_clip
from sgpa_jax.errors import AudioError, PlayerError, UsageError
from sgpa_jax.estimators import AUTHORS, estimate
from sgpa_jax.games import Evaluations, authors_game
from sgpa_jax.games.authors import JoinedWords
from sgpa_jax.models import load_model
from sgpa_jax.players import all_coalitions

PROMPT = "what to do ?"
N_NEW = 5
RATE_HZ = 22_050
MASKS_CP = all_coalitions(3)
# In samples of the recording; the second word runs into the third, and all are equally long: few shapes to compile.
SPANS = ((2205, 28_665), (28_700, 55_160), (45_000, 71_460))


@pytest.fixture(scope="module")
def clip():
    """Nine words at another rate than the models', louder than a 16-bit file can tell."""
    demo = read_clip(Path(sgpa_checkpoints.__file__).parent / "demo" / "demo.wav").at_rate(RATE_HZ)
    return Clip(1.2 * demo.wave_s / np.abs(demo.wave_s).max(), RATE_HZ)


@pytest.fixture(scope="module")
def alignment(clip):
    words = tuple(Word(f"word{i}", first / RATE_HZ, end / RATE_HZ) for i, (first, end) in enumerate(SPANS))
    return Alignment(words, clip.duration_s, "word0 word1 word2", "x", "", "authors", "character")


@pytest.fixture(scope="module")
def pocket():
    return load_model("pocket")


@pytest.fixture(scope="module")
def lfm2():
    return load_model("pocket-lfm2")


def heard(clip: Clip, mask_p, path: Path) -> Clip:
    """Write the words that are there to a 16-bit file and read it back."""
    joined_s = np.concatenate(
        [clip.wave_s[first:end] for (first, end), is_there in zip(SPANS, mask_p, strict=True) if is_there]
    )
    scaled = [min(max(sample, -1.0), 1.0) * 32767 for sample in joined_s.tolist()]
    soundfile.write(path, np.array([round(sample) for sample in scaled], np.int16), clip.rate_hz, subtype="PCM_16")
    back_s, rate_hz = soundfile.read(path, dtype="int16")
    return Clip(back_s.astype(np.float32) / 32767, rate_hz)


def answer(model, clip: Clip, mask_p, path: Path):
    """Answer a coalition on its own."""
    if not mask_p.any():
        alone = model.prepare_text([{"role": "user", "content": PROMPT}])
    else:
        alone = model.prepare(clip if mask_p.all() else heard(clip, mask_p, path), PROMPT)
    return model.generate(alone, max_new_tokens=N_NEW)


def test_answers_and_values_are_those_of_files_answered_alone(pocket, clip, alignment, tmp_path):
    game = authors_game(pocket, clip, alignment, prompt=PROMPT, max_new_tokens=N_NEW, microbatch=8)
    expected = [answer(pocket, clip, mask_p, tmp_path / "heard.wav") for mask_p in MASKS_CP]
    assert game.evaluate(MASKS_CP) == expected
    assert len({said.ids for said in expected}) > 2, "the test needs coalitions with different answers"
    assert game.evaluations == Evaluations(requested=8, unique=8, model_forwards=8)

    found = estimate(game, AUTHORS, budget=6, key=jax.random.key(3))
    assert (found.estimator, found.estimand, found.budget) == ("neyman_authors", "shapley", 6)
    assert found.evaluations.requested == 6 and found.evaluations.model_forwards == 0
    # The end mark is a token of an answer that came to its end.
    terms = [[*said.ids, -1][:N_NEW] for said in expected]
    rows = (found.masks_cp @ [1, 2, 4]).tolist()
    vectorizer = TfidfVectorizer(analyzer=list)  # pyright: ignore[reportArgumentType]
    vectors = vectorizer.fit_transform([terms[row] for row in (7, *rows)]).toarray()
    values = vectors[1:] @ vectors[0]
    np.testing.assert_allclose(found.coalition_values_ck[:, 0], values, atol=1e-6)
    np.testing.assert_allclose(found.values_pk[:, 0], slow_shares(found.masks_cp, values), atol=1e-6)
    assert found.full_value_k[0] == pytest.approx(1) and found.empty_value_k[0] == pytest.approx(values[0])


def slow_shares(masks_cp, values) -> list[float]:
    """The authors' complementary contributions, cell by cell."""
    n_players, shares = masks_cp.shape[1], []
    for player in range(n_players):
        cells: dict[int, list[float]] = {}
        for row in range(0, len(masks_cp), 2):
            difference = values[row] - values[row + 1]
            for mask_p, contribution in ((masks_cp[row], difference), (masks_cp[row + 1], -difference)):
                if mask_p[player]:
                    cells.setdefault(int(mask_p.sum()), []).append(contribution)
        shares.append(sum(sum(cell) / len(cell) for cell in cells.values()) / n_players)
    return shares


def test_without_a_question_nobody_leaves_no_turn(lfm2, clip, alignment, tmp_path):
    begun = lfm2.prepare_text([{"role": "system", "content": "be brief"}])
    opened = begun.ids_t[np.flatnonzero(begun.ids_t == lfm2.chat.id_of("<|im_start|>"))[-1] :]
    alone = lfm2.prepare_ids(np.array([lfm2.chat.id_of("<|startoftext|>"), *opened]), [])
    empty, some = authors_game(lfm2, clip, alignment, max_new_tokens=N_NEW).evaluate(MASKS_CP[[0, 5]])
    assert empty == lfm2.generate(alone, max_new_tokens=N_NEW)
    two = lfm2.prepare(heard(clip, MASKS_CP[5], tmp_path / "heard.wav"))
    assert some == lfm2.generate(two, max_new_tokens=N_NEW)


def test_words_that_are_longer_together_than_the_recording(pocket):
    short = Clip(np.sin(np.arange(24_000, dtype=np.float32) / 7), 16_000)
    words = tuple(
        Word(f"{i}", start_s, end_s) for i, (start_s, end_s) in enumerate([(0.0, 1.2), (0.1, 1.3), (1.2, 1.5)])
    )
    spoken = Alignment(words, 1.5, "0 1 2", "x", "", "given", "none")
    joined = JoinedWords.of(pocket, short, spoken)
    assert joined.n_samples(MASKS_CP[[3, 7, 0]]).tolist() == [38_400, 43_200, pocket.minimum_samples]
    game = authors_game(pocket, short, spoken, prompt=PROMPT, max_new_tokens=N_NEW)
    (both,) = game.evaluate(MASKS_CP[3:4])
    wave_s = np.concatenate([short.wave_s[:19_200], short.wave_s[1600:20_800]])
    alone = Clip(np.rint(wave_s * 32767) / np.float32(32767), 16_000)
    assert both == pocket.generate(pocket.prepare(alone, PROMPT), max_new_tokens=N_NEW)


def test_refusals(pocket, clip, alignment):
    with pytest.raises(UsageError, match="at least one"):
        authors_game(pocket, clip, alignment, max_new_tokens=0)
    swallowed = Alignment((Word("a", 0.5, 0.6), Word("b", 0.5, 0.9)), 1.0, "a b", "x", "", "given", "none")
    with pytest.raises(PlayerError, match="'a'"):
        authors_game(pocket, clip, swallowed)
    with pytest.raises(AudioError, match="hears"):
        authors_game(pocket, Clip(np.zeros(16_000 * 60, np.float32), 16_000), alignment)
