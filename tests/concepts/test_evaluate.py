"""The three protocols on scores of which everything is known, and on a folder in FSD50K's layout."""

from pathlib import Path

import jax
import numpy as np
import pytest

from sgpa_jax.audio import Clip, read_clip, write_wav
from sgpa_jax.concepts import (
    ClipScores,
    evaluate_scores,
    implied_classes,
    linear_probe,
    match_names,
    matching_label,
    mentions,
    pooled_clips,
    protocol_a,
    protocol_b,
    protocol_c,
    read_fsd50k,
    truth,
    with_intervals,
)
from sgpa_jax.errors import UsageError

CLASSES = ("Bark", "Dog", "Male_speech_and_man_speaking", "Rain", "Wind")


def made(n_clips: int, seed: int, *, noise: float = 0.0) -> ClipScores:
    """Latents 0 to 4 know a class each, 5 knows all dogs as well but faintly, 6 and 7 know nothing."""
    rng = np.random.default_rng(seed)
    true_nj = rng.uniform(size=(n_clips, 5)) < 0.25
    true_nj[:, 1] |= true_nj[:, 0]
    strength_nm = np.concatenate([true_nj, 0.2 * true_nj[:, 1:2], rng.uniform(size=(n_clips, 2)) < 0.3], axis=1)
    mean_nm = strength_nm * rng.uniform(0.5, 1, size=(n_clips, 8)) + noise * rng.uniform(size=(n_clips, 8))
    labels = tuple(tuple(np.array(CLASSES)[row]) for row in true_nj)
    return ClipScores(
        tuple(map(str, range(n_clips))), labels, np.ones(n_clips), np.full(n_clips, 25), mean_nm.astype(np.float32),
        np.ones((n_clips, 8), np.float32), tuple(range(10, 18)),
    )  # fmt: skip


class Texts:
    """An embedder that knows that a hound is a dog, more or less."""

    name = "texts"

    def embed_audio(self, clips):
        raise AssertionError("only names are embedded")

    def embed_text(self, texts):
        known = [*(label.replace("_", " ") for label in CLASSES)]
        rows = np.array([[text == label for label in known] for text in texts], float)
        for n, text in enumerate(texts):
            if text == "hound":
                rows[n, :2] = 0.3, 0.7
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def test_by_name():
    dev, evaluated = made(200, 0), made(150, 1)
    names = ["bark", "dog", "man speaking", "Rain!", None, "hound", "storm", "zebra"]
    found = protocol_a(names, dev, evaluated, CLASSES)
    assert found.facts["mapped_frac"] == 4 / 8 and found.facts["named_frac"] == 7 / 8 and found.facts["n_covered"] == 4
    prevalence = truth(evaluated.labels, CLASSES)[:, 4].mean()
    assert found.figures["mAP_covered"] == pytest.approx(1) and found.figures["mAP"] == pytest.approx(
        (4 + prevalence) / 5
    )
    for name in ("precision", "recall", "f1"):
        assert found.figures[name] == pytest.approx(0.8, abs=0.03)
    heard = protocol_a(["bark", "hound", *["zebra"] * 6], dev, evaluated, CLASSES, embedder=Texts())
    assert heard.facts["mapped_frac"] == 2 / 8 and heard.figures["mAP_covered"] == pytest.approx(1)
    strict = match_names(["hound", "bark", None], CLASSES, embedder=Texts(), similarity=0.95)
    assert strict.tolist() == [-1, 0, -1]
    # A faint latent of the class does no harm: every latent counts in the units of its own strongest clips.
    both = protocol_a([None, "dog", None, None, None, "dog", None, None], dev, evaluated, CLASSES)
    assert both.figures["mAP_covered"] == pytest.approx(1)
    # A bark is a dog's: the concept of a class speaks for those above it as well.
    above = protocol_a(["loud bark", *[None] * 7], dev, evaluated, CLASSES)
    assert above.facts["n_covered"] == 2 and 0.5 < above.figures["mAP_covered"] < 1
    wrong = protocol_a(["wind", None, "bark", *[None] * 5], dev, evaluated, CLASSES)
    assert wrong.figures["mAP_covered"] < 0.5
    with pytest.raises(UsageError, match="2 names for 8 concepts"):
        protocol_a(["a", "b"], dev, evaluated, CLASSES)


def test_by_label_and_by_caption():
    dev, evaluated = made(200, 0, noise=0.3), made(150, 1, noise=0.3)
    found = protocol_b(dev, evaluated, CLASSES)
    assert found.facts["latents"][:1] + found.facts["latents"][2:] == [10, 12, 13, 14]
    assert found.facts["latents"][1] in (11, 15) and found.figures["mAP"] > 0.9
    captions = [
        ["a dog's bark"] * 3 + ["rain"],
        ["dog"],
        ["some man speaking"],
        ["wind, rain"],
        ["Wind"],
        [],
        ["x"],
        [""],
    ]
    said = protocol_c(captions, evaluated, CLASSES, key=jax.random.key(0))
    assert said.predictions is None and said.facts["n_concepts"] == 8
    assert 0 < said.figures["precision"] < 1 and 0 < said.figures["recall"] < 1
    alone = evaluated.take(range(150))
    alone.coverage_nm[:, 5:] = 0
    exact = protocol_c(
        [[label] for label in ("bark dog", "dog", "man speaking", "rain", "wind")] + [[]] * 3, alone, CLASSES
    )
    assert exact.facts["n_concepts"] == 5 and exact.figures["precision"] > 0.9
    with pytest.raises(UsageError, match="no concept fires in 4"):
        protocol_c([[]] * 8, made(3, 0), CLASSES)


def test_intervals_over_clips_and_seeds(key):
    dev = made(200, 0, noise=0.6)
    evaluated = [made(150, 1, noise=noise) for noise in (0.5, 0.9)]
    first, second = (protocol_b(dev, scores, CLASSES) for scores in evaluated)
    one, both = (with_intervals(part, n_resamples=200, key=key) for part in ([first], [first, second]))
    for name in ("mAP", "f1", "lwlrap"):
        low, high = one.intervals[name]
        assert low <= one.figures[name] <= high and one.figures[name] == first.figures[name]
        wide_low, wide_high = both.intervals[name]
        assert both.figures[name] == pytest.approx((first.figures[name] + second.figures[name]) / 2)
        assert wide_high - wide_low > high - low or name != "mAP"
    assert both.facts["n_seeds"] == 2 and set(one.to_dict()) >= {"figures", "intervals", "facts", "protocol"}
    with pytest.raises(UsageError, match="different clips"):
        with_intervals([first, protocol_b(dev, made(150, 2), CLASSES)], key=key)
    with pytest.raises(UsageError, match="of one protocol"):
        with_intervals([protocol_c([["dog"]] * 8, evaluated[0], CLASSES)], key=key)


def test_labels_and_names():
    assert matching_label("Man Speaking", CLASSES) == 2 and matching_label("male speech and man speaking", CLASSES) == 2
    assert [matching_label(name, CLASSES) for name in ("angry male speech", "rain and wind", "dog bark")] == [2, 4, 0]
    assert matching_label("speech", CLASSES) is None and matching_label("dogs", CLASSES) is None
    assert mentions(["a dog, then rain", "man speaking", "windy"], CLASSES).tolist() == [
        [False, True, False, True, False],
        [False, False, True, False, False],
        [False] * 5,
    ]
    true_nj = truth(made(200, 0).labels, CLASSES)
    assert np.argwhere(implied_classes(true_nj) & ~np.eye(5, dtype=bool)).tolist() == [[0, 1]]
    assert (implied_classes(true_nj[true_nj[:, 0]][:1]) == np.eye(5)).all()  # nothing follows from a single bark
    assert truth([["Rain", "unheard of"], []], CLASSES).tolist() == [[False, False, False, True, False], [False] * 5]


def test_a_probe_of_scores_that_are_linear(key):
    rng = np.random.default_rng(0)
    x_nd, weight_dj = rng.standard_normal((240, 10)), rng.standard_normal((10, 3))
    true_nj = x_nd @ weight_dj > 1
    dev_nj, eval_nj = linear_probe(x_nd[:160], true_nj[:160], x_nd[160:], key=key)
    labels = [[f"c{j}" for j in np.flatnonzero(row)] for row in true_nj]
    found = evaluate_scores(dev_nj, labels[:160], eval_nj, labels[160:], ["c0", "c1", "c2"], "probe")
    assert found.figures["mAP"] > 0.95 and found.figures["f1"] > 0.8
    chance, _ = linear_probe(x_nd[:160], rng.permutation(true_nj[:160]), x_nd[160:], key=key)
    assert evaluate_scores(chance, labels[:160], eval_nj, labels[160:], ["c0", "c1", "c2"], "x").figures["mAP"] > 0.9
    shuffled = evaluate_scores(dev_nj, labels[:160], chance[:80], labels[160:], ["c0", "c1", "c2"], "x")
    assert shuffled.figures["mAP"] < 0.6, "dev scores of a probe are held out: chance labels give chance scores"


def write_corpus(folder: Path) -> None:
    rng, truth_folder = np.random.default_rng(0), folder / "FSD50K.ground_truth"
    truth_folder.mkdir(parents=True)
    rows = {"dev": ["fname,labels,mids,split"], "eval": ["fname,labels,mids"]}
    for number in range(6):
        half = "dev" if number < 4 else "eval"
        write_wav(
            folder / f"FSD50K.{half}_audio" / f"{number}.wav",
            Clip(0.1 * rng.standard_normal(22050).astype(np.float32), 44100),
        )
        row = f'{number},"Bark,Dog",/m/1' if number % 2 else f"{number},Rain,/m/2"
        rows[half].append(row + (",val" if number == 3 else ",train") * (half == "dev"))
    for half, lines in rows.items():
        (truth_folder / f"{half}.csv").write_text("\n".join(lines) + "\n")
    lines = [f"{number},{label},/m/{number}" for number, label in enumerate(CLASSES)]
    (truth_folder / "vocabulary.csv").write_text("\n".join(lines) + "\n")


def test_a_folder_in_fsd50ks_layout(tmp_path: Path):
    write_corpus(tmp_path / "fsd50k")
    corpus = read_fsd50k(tmp_path / "fsd50k")
    assert corpus.classes == CLASSES and len(corpus.dev) == 4 and corpus.validation == {"3"}
    assert corpus.eval[1].labels == ("Bark", "Dog") and corpus.eval[1].id == "5"
    clip = read_clip(corpus.eval[1].path, rate_hz=16000)
    assert len(clip.wave_s) == 8000 and read_clip(corpus.eval[1].path).rate_hz == 44100


def test_rows_of_a_clip_become_their_mean(planted):
    _, store = planted
    pooled = pooled_clips(store, 1)
    assert pooled.ids == tuple(row["clip"] for row in store.index) and pooled.mean_nd.shape == (320, 16)
    row = store.index[250]
    rows_td = store.rows(row["shard"], 1)[row["offset"] : row["offset"] + row["tokens"]]
    np.testing.assert_allclose(pooled.mean_nd[250], rows_td.mean(axis=0), rtol=1e-5)
    assert pooled.labels[250] == tuple(row["labels"])


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("vocabulary.csv", None, "cannot read"),
        ("vocabulary.csv", "", "is empty"),
        ("vocabulary.csv", "0\n", "row without a label"),
        ("dev.csv", "fname,labels,mids\n1,Dog,x\n", "lacks the column 'split'"),
        ("eval.csv", "fname,labels,mids\n", "has no rows"),
        ("eval.csv", "fname,labels,mids\n1,Zebra,x\n", "the label 'Zebra', which vocabulary.csv lacks"),
        ("eval.csv", "fname,labels,mids\n1,Dog\n", "another number of columns"),
    ],
)
def test_refuses_damaged_tables(tmp_path: Path, name: str, text: str | None, told: str):
    write_corpus(tmp_path)
    path = tmp_path / "FSD50K.ground_truth" / name
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=told):
        read_fsd50k(tmp_path)
