"""From a harvest to a bank with names and detection scores, and from the bank's folder to the bank."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from sgpa_jax.concepts import (
    ConceptBank,
    ConsensusNamer,
    Namer,
    area_under_curve,
    caption_clips,
    caption_judge,
    clip_scores,
    detect,
    embedding_judge,
    name_concepts,
    rank_concepts,
    sae_digest,
    set_score,
)
from sgpa_jax.errors import UsageError
from sgpa_jax.sae import ActivationStore, Recording, TrainedSAE

SOUNDS = ("dog", "rain", "bell", "wind", "frog", "saw", "cat", "flute")


@pytest.fixture(scope="module")
def known(planted, tmp_path_factory) -> tuple[TrainedSAE, ActivationStore, list[Recording], dict[str, str]]:
    """The planted harvest with files that are not there and captions that tell what is."""
    trained, store = planted
    folder = tmp_path_factory.mktemp("sounds")
    captions, recordings = {}, []
    for row in store.index:
        sounds = [SOUNDS[int(label.split()[1])] for label in row["labels"]]
        captions[row["clip"]] = f"a {' and then a '.join(sounds)} in a room"
        recordings.append(Recording(row["clip"], folder / f"{row['clip']}.wav", tuple(row["labels"])))
    return trained, store, recordings, captions


@pytest.fixture(scope="module")
def unit_ne(known) -> np.ndarray:
    rng = np.random.default_rng(0)
    labels_nj = np.array([[f"class {g}" in row["labels"] for g in range(8)] for row in known[1].index], float)
    rows_ne = labels_nj @ rng.standard_normal((8, 24)) + 0.1 * rng.standard_normal((320, 24))
    return rows_ne / np.linalg.norm(rows_ne, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def bank(known, unit_ne: np.ndarray) -> ConceptBank:
    trained, store, recordings, _ = known
    return rank_concepts(
        trained, store, recordings, unit_ne=unit_ne, embedder_name="planted", n_keep=6, n_permutations=10
    )


class Teller:
    """A captioner that reads the file's name."""

    name = "teller"

    def __init__(self):
        self.asked = []

    def caption(self, clip) -> str:
        self.asked.append(clip.path)
        return f"the clip {Path(clip.path).stem}"


def known_values(bank: ConceptBank, name: str) -> list[Any]:
    """A figure of all concepts, none of which lacks it."""
    values = [getattr(concept, name) for concept in bank.concepts]
    assert None not in values, name
    return values


def test_ranked(known, bank: ConceptBank, unit_ne: np.ndarray):
    trained, store, recordings, _ = known
    assert len(bank) == 6 and len(set(bank.latents)) == 6
    values = known_values(bank, "monosemanticity")
    assert values == sorted(values, reverse=True) and values[0] > 1
    scores = clip_scores(trained, store, latents=bank.latents)
    where = {name: n for n, name in enumerate(scores.ids)}
    for place, concept in enumerate(bank.concepts):
        assert [clip.score for clip in concept.top] == pytest.approx(sorted(scores.score_nm[:, place])[::-1][:4])
        for clip in (*concept.top, *concept.bottom):
            assert clip.score == pytest.approx(scores.score_nm[where[clip.id], place])
            assert clip.path == recordings[where[clip.id]].path and clip.seconds == pytest.approx(1.6)
        shown = np.array([[where[clip.id] for clip in side] for side in (concept.top, concept.bottom)])
        assert concept.monosemanticity == pytest.approx(set_score(unit_ne, shown[:1], shown[1:])[0])
        assert concept.n_firing == (scores.coverage_nm[:, place] > 0).sum()
        assert concept.density == pytest.approx(scores.density_m[place])
    for name, least in (("pach", 0), ("overlap", 0), ("mean", 0.6), ("coverage", 0.5)):
        assert min(known_values(bank, name)) > least, name
    assert bank.facts["n_alive"] == 8 and bank.facts["monosemanticity"]["n_kept"] == 6
    plain = rank_concepts(trained, store, n_keep=6, length_matched=True)
    assert plain.concepts[0].monosemanticity is None and plain.concepts[0].top[0].path is None
    counts = known_values(plain, "n_firing")
    assert counts == sorted(counts, reverse=True) and plain.facts["monosemanticity"] is None


def test_named_by_consensus_and_detected(known, bank: ConceptBank):
    trained, store, _, captions = known
    namer: Namer = ConsensusNamer(list(captions.values()))
    named = name_concepts(bank, namer, captions)
    assert named.names == tuple(SOUNDS[latent] for latent in bank.latents)
    assert min(known_values(named, "confidence")) > 0.95 and named.facts["named_frac"] == 1
    assert named.concepts[0].captions[0] == captions[named.concepts[0].top[0].id]
    assert named.named(SOUNDS[bank.latents[2]].upper()) == (named.concepts[2],)
    assert named.of(bank.latents[1]) is named.concepts[1]
    scores = clip_scores(trained, store, latents=bank.latents)
    found = detect(named, scores, caption_judge(captions), key=jax.random.key(0))
    assert found.facts["n_detection"] == 6 and found.facts["detection"] > 0.6
    wrong = detect(named.with_columns(name=["saw dust"] * 6), scores, caption_judge(captions), key=jax.random.key(0))
    assert wrong.facts["detection"] < found.facts["detection"]
    nameless = detect(bank, scores, caption_judge(captions), key=jax.random.key(0))
    assert nameless.facts["detection"] is None and nameless.concepts[0].detection is None

    class Ears:
        name = "ears"

        def embed_text(self, texts):
            return np.array([[word in text for word in SOUNDS] for text in texts], float)

        def embed_audio(self, clips):
            raise AssertionError("the sounds are embedded already")

    heard_ne = np.array([[f"class {g}" in labels for g in range(8)] for labels in scores.labels], float)
    ears = detect(named, scores, embedding_judge(Ears(), scores.ids, heard_ne), key=jax.random.key(0))
    assert ears.facts["detection"] == found.facts["detection"], "both judges know exactly what is in a clip"
    with pytest.raises(UsageError, match="of other latents"):
        detect(named, clip_scores(trained, store, latents=[0]), caption_judge(captions), key=jax.random.key(0))
    with pytest.raises(UsageError, match="has no caption"):
        name_concepts(bank, namer, {})
    with pytest.raises(UsageError, match="none of latent 99"):
        bank.of(99)


def test_a_consensus_abstains():
    corpus = ["a dog barks"] * 20 + ["rain on a roof"] * 70 + ["a car horn and rain"] * 10
    namer = ConsensusNamer(corpus)
    assert namer.name_concept(["a dog barks"] * 4).name == "dog barks"
    assert namer.name_concept(["rain on a roof", "rain falls", "rain", "a car horn and rain"]).name is None
    assert namer.name_concept(["a car horn and rain"] * 3 + ["rain on a roof"]).name == "car horn"
    assert namer.name_concept(["a dog barks"] * 4, ["a dog barks"] * 4).name is None
    assert namer.name_concept(["the", "a"]) == namer.name_concept([])
    with pytest.raises(UsageError, match="there are none"):
        ConsensusNamer([])


def test_every_clip_is_captioned_once(bank: ConceptBank, tmp_path: Path):
    from sgpa_jax.audio import Clip, write_wav

    for concept in bank.concepts:
        for clip in (*concept.top, *concept.bottom):
            assert clip.path is not None
            write_wav(clip.path, Clip(np.zeros(100, np.float32), 16000))
    first = bank.concepts[0].top[0].id
    teller = Teller()
    captions = caption_clips(teller, bank, known={first: "known"})
    wanted = {clip.id for concept in bank.concepts for clip in (*concept.top, *concept.bottom)}
    assert captions == {name: f"the clip {name}" for name in wanted} | {first: "known"}
    assert len(teller.asked) == len(wanted) - 1


def test_saved_and_read_again(bank: ConceptBank, known, tmp_path: Path):
    named = name_concepts(bank, ConsensusNamer(list(known[3].values())), known[3])
    named.save(tmp_path / "one")
    again = ConceptBank.load(tmp_path / "one")
    assert (again.model, again.sae, again.facts) == (named.model, named.sae, named.facts)
    assert [Path(str(c.top[0].path)).resolve() for c in again.concepts] == [c.top[0].path for c in named.concepts]

    def plain(bank: ConceptBank) -> list[dict]:
        return [
            vars(c)
            | {"top": [(x.id, x.score, x.seconds) for x in c.top], "bottom": [(x.id, x.score) for x in c.bottom]}
            for c in bank.concepts
        ]

    assert plain(again) == plain(named)
    again.check(known[0])
    assert again.sae["digest"] == sae_digest(known[0])
    # Another bank in the same folder takes its place, and nothing is left of the first.
    bank.save(tmp_path / "one")
    assert ConceptBank.load(tmp_path / "one").names == (None,) * 6
    assert len(list((tmp_path / "one").iterdir())) == 2


def test_refuses_what_is_damaged(bank: ConceptBank, known, tmp_path: Path, sae_of):
    with pytest.raises(UsageError, match="holds no concepts"):
        ConceptBank.load(tmp_path)
    bank.save(tmp_path)
    told, (numbers,) = tmp_path / "bank.json", tmp_path.glob("*.safetensors")
    whole, text = numbers.read_bytes(), told.read_text()
    for damage in (whole[:-1], whole[:-1] + b"x"):
        numbers.write_bytes(damage)
        with pytest.raises(UsageError, match="damaged or incomplete"):
            ConceptBank.load(tmp_path)
    numbers.unlink()
    with pytest.raises(UsageError, match="damaged or incomplete"):
        ConceptBank.load(tmp_path)
    numbers.write_bytes(whole)
    for wrong, match in (
        (text[:50], r"bank\.json is damaged"),
        (text.replace("concepts/1", "concepts/2"), "concepts/2"),
        (json.dumps(json.loads(text) | {"concepts": json.loads(text)["concepts"][1:]}), "damaged or incomplete"),
    ):
        told.write_text(wrong)
        with pytest.raises(UsageError, match=match):
            ConceptBank.load(tmp_path)
    with pytest.raises(UsageError, match="another autoencoder"):
        bank.check(sae_of(np.eye(16), 3))


def test_area_under_curve():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    true_n, score_n = rng.uniform(size=50) < 0.4, np.round(rng.uniform(size=50), 1)
    assert area_under_curve(score_n, true_n) == pytest.approx(roc_auc_score(true_n, score_n))
    assert np.isnan(area_under_curve(score_n, true_n | True))
