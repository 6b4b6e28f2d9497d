"""LFM2-Audio as a whole against goldens of liquid-audio, its checkpoint's names, and the generation of speech."""

import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sgpa_checkpoints
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import save_file

from sgpa_jax.models.audio_lm import NO_CLIP, Layout, Placed
from sgpa_jax.models.families import family_of
from sgpa_jax.models.fill import fill
from sgpa_jax.models.order import causal_order
from sgpa_jax.models.sampling import Sampling
from sgpa_jax.models.speech import SpeechMarks, _next, _Turn, generate_speech

GOLDENS = Path(__file__).parents[1] / "goldens"
MARKS = SpeechMarks(end=7, audio_start=128, text_end=130)
TEXT, AUDIO_IN, AUDIO_OUT = 1, 2, 3
END_OF_AUDIO = 2048
N_ROOM = 52
REAL = {
    "codebooks": 8,
    "preprocessor": {"sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01,
                     "window": "hann", "features": 128, "n_fft": 512, "log": True, "frame_splicing": 1,
                     "dither": 1e-5, "pad_to": 0, "pad_value": 0.0},
    "encoder": {"feat_in": 128, "feat_out": -1, "n_layers": 17, "d_model": 512, "subsampling": "dw_striding",
                "subsampling_factor": 8, "subsampling_conv_channels": 256, "ff_expansion_factor": 4,
                "self_attention_model": "rel_pos", "n_heads": 8, "att_context_size": [-1, -1], "xscaling": False,
                "untie_biases": True, "conv_kernel_size": 9, "conv_norm_type": "batch_norm"},
    "lfm": {"hidden_size": 2048, "num_hidden_layers": 16, "vocab_size": 65536, "num_attention_heads": 32,
            "num_key_value_heads": 8, "full_attn_idxs": [2, 5, 8, 10, 12, 14], "block_ff_dim": 12288,
            "block_multiple_of": 256, "block_ffn_dim_multiplier": 1, "rope_theta": 1000000.0, "conv_L_cache": 3},
    "depthformer": {"layers": 6, "dim": 1024, "tie": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def golden():
    """Inputs and outputs by name, the metadata under their own, and the checkpoint under `weights`."""
    with safe_open(GOLDENS / "lfm2_audio_tiny.safetensors", "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  safe_open is no mapping
        values = arrays | {name: json.loads(text) for name, text in file.metadata().items()}
    weights = {name.removeprefix("w."): values.pop(name) for name in arrays if name.startswith("w.")}
    heads = {name.replace(".embedding.", ".to_logits."): weights[name] for name in weights if ".embedding." in name}
    return values | {"weights": weights | {name: np.array(head) for name, head in heads.items()}}


@pytest.fixture(scope="module")
def config(golden):
    parts = {"preprocessor": golden["pre"], "encoder": golden["encoder"], "lfm": golden["lfm"]}
    return parts | {"codebooks": 4, "depthformer": {"layers": 2, "dim": 64, "tie": True}}


@pytest.fixture(scope="module")
def model(golden, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lfm2_audio")
    return nnx.merge(*_filled(config, golden["weights"], folder))


def _filled(config, weights, folder):
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    family = family_of(config)
    settings = family.read_config(config, None)
    return fill(lambda: family.build(settings), folder, family.rules, normalise=family.normalise, dtype="float32")


@pytest.fixture(scope="module")
def prompts(golden):
    """Three rows of different lengths, all beginnings of the golden's prompt."""
    n_b = np.array([37, 20, 29])
    return Placed(jnp.asarray(np.pad(golden["emb"], ((0, 0), (0, 3), (0, 0))).repeat(3, axis=0)), jnp.asarray(n_b))


def _generate(model, placed, n_new, **options):
    options = {"marks": MARKS, "room": 12} | options
    return generate_speech(*nnx.split(model), placed, jnp.asarray(n_new), **options)


def _as_list(tokens, row=0):
    """Tokens of a row as liquid-audio gives them: lists of one id, or of the codes."""
    ids, codes, is_audio = np.asarray(tokens.ids_bn[row]), np.asarray(tokens.codes_bnk[row]), tokens.is_audio_bn[row]
    return [codes[i].tolist() if is_audio[i] else [int(ids[i])] for i in range(int(tokens.n_b[row]))]


def test_a_prompt_of_text_clips_and_earlier_speech_is_that_of_liquid_audio(golden, model):
    """Two clips, text and four frames, each at its place: the decoder's inputs."""
    flag = golden["flag"][0]
    mels = np.split(golden["audio_in"].T, np.cumsum(golden["lens"])[:-1])
    mel = np.stack([np.pad(part, ((0, golden["lens"].max() - len(part)), (0, 0))) for part in mels])
    n_audio = np.asarray(model.config.encoder.n_tokens(golden["lens"]))

    def scattered(values, where, missing):
        row = np.full((len(flag), *values.shape[1:]), missing, np.int32)
        row[flag == where] = values
        return row[None]

    rows = (
        scattered(golden["text"][0], TEXT, 0),
        scattered(np.repeat(np.arange(len(n_audio)), n_audio), AUDIO_IN, NO_CLIP),
        scattered(np.concatenate([np.arange(n) for n in n_audio]), AUDIO_IN, 0),
        np.ones((1, len(flag)), bool),
        scattered(golden["ao"].T, AUDIO_OUT, -1),
    )
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state, layout, mel, n_frames, n_audio):
        network = nnx.merge(graphdef, state)
        audio = network.encode(mel, n_frames)
        return audio, network.place(layout, audio[None], n_audio[None])

    audio, placed = run(state, Layout(*rows), mel, golden["lens"], n_audio)
    kept = np.concatenate([np.asarray(audio)[i, :n] for i, n in enumerate(n_audio)])
    np.testing.assert_allclose(kept, golden["cap.adapter"], atol=1e-5)
    assert int(placed.n_b[0]) == len(flag)
    np.testing.assert_allclose(placed.x, golden["emb"], atol=1e-5)


@functools.partial(jax.jit, static_argnums=0)
def _whole(graphdef, state, x, last):
    """The pass without a cache over a row that ends at `last`: every residual, the end, logits, the frame after it."""
    network, seen = nnx.merge(graphdef, state), []
    order = causal_order((jnp.arange(x.shape[0]) <= last)[None])
    hidden = network.decoder(x[None], order, edit=lambda _, residual: seen.append(residual) or residual)
    return seen, hidden, network.decoder.logits(hidden), network.audio_out.frame(hidden[:, last])[0]


def test_every_layer_logits_and_a_frame_are_those_of_liquid_audio(golden, model):
    n = golden["emb"].shape[1]
    x = np.pad(golden["emb"][0], ((0, N_ROOM - n), (0, 0)))
    seen, hidden, logits, frame = _whole(*nnx.split(model), x, jnp.asarray(n - 1))
    for layer in range(len(seen) - 1):
        np.testing.assert_allclose(seen[layer][:, :n], golden[f"hs.{layer + 1}"], atol=1e-5)
    np.testing.assert_allclose(hidden[:, :n], golden["last_hidden"], atol=1e-5)
    np.testing.assert_allclose(logits[:, :n], golden["logits"], atol=1e-4)
    assert frame.tolist() == golden["frame"].tolist()


@pytest.mark.parametrize(("name", "interleave"), [("seq", None), ("inter", (2, 3))])
def test_greedy_speech_is_that_of_liquid_audio(golden, model, prompts, name, interleave):
    expected = golden[name]
    tokens = _generate(model, prompts, len(expected), interleave=interleave)
    assert _as_list(tokens) == expected
    assert (np.asarray(tokens.ids_bn)[:, len(expected) :] == MARKS.end).all()
    assert (np.asarray(tokens.codes_bnk)[:, len(expected) :] == -1).all()


class Machine:
    """What liquid-audio does next, one row at a time, as its two loops say it."""

    def __init__(self, interleave):
        self.interleave, self.speaks, self.text_ended, self.ended = interleave, False, False, False
        self.left = interleave[0] if interleave else 0

    def take(self, token):
        """Take an id or a list of codes; return whether it belongs to the answer."""
        self.left -= 1
        if isinstance(token, int):
            self.ended = token == MARKS.end
            self.text_ended |= token == MARKS.text_end
            if not self.interleave:
                self.speaks = token == MARKS.audio_start
            elif not self.ended and (self.left == 0 or self.text_ended):
                self.speaks, self.left = True, self.interleave[1]
            return not self.ended
        if self.interleave and self.left == 0 and not self.text_ended:
            self.speaks, self.left = False, self.interleave[0]
        if token[0] == END_OF_AUDIO:
            self.speaks = False
        return True


@pytest.mark.parametrize("interleave", [None, (2, 3), (1, 1), (6, 12)])
def test_turns_are_taken_as_liquid_audio_takes_them(interleave):
    """Random tokens, many of them marks, for many rows at once."""
    rng, n_rows = np.random.default_rng(7), 200
    machines = [Machine(interleave) for _ in range(n_rows)]
    nobody = jnp.zeros(n_rows, bool)
    turn = _Turn(nobody, jnp.full(n_rows, machines[0].left, jnp.int32), nobody, nobody)
    step = jax.jit(lambda turn, ids, codes: _next(turn, ids, codes, MARKS, interleave))
    for _ in range(60):
        ids = rng.choice([1, 2, 3, *MARKS], n_rows, p=[0.3, 0.3, 0.25, 0.01, 0.1, 0.04])
        codes = np.where(rng.random((n_rows, 1)) < 0.15, END_OF_AUDIO, rng.integers(0, 2048, (n_rows, 2)))
        codes = np.where(np.asarray(turn.speaks_b & ~turn.ended_b)[:, None], codes, -1)
        ids = np.where(codes[:, 0] >= 0, 0, np.where(turn.ended_b, MARKS.end, ids))
        turn = step(turn, jnp.asarray(ids, jnp.int32), jnp.asarray(codes, jnp.int32))
        for machine, token, code in zip(machines, ids.tolist(), codes.tolist(), strict=True):
            if not machine.ended:
                machine.take(code if code[0] >= 0 else token)
        assert np.asarray(turn.ended_b).tolist() == [machine.ended for machine in machines]
        going = [i for i, machine in enumerate(machines) if not machine.ended]
        assert np.asarray(turn.speaks_b)[going].tolist() == [machines[i].speaks for i in going]
    assert 0 < len(going) < n_rows


@pytest.fixture(scope="module")
def restless(model):
    """A model that changes between text and audio often, and ends: its marks are louder, for all who use it."""
    network = nnx.clone(model)
    text, codes = network.decoder.embedding.table, network.audio_out.codebooks[0].embedding.table
    text.set_value(text[...].at[jnp.array([*MARKS])].multiply(jnp.array([[2.2], [2.5], [2.0]])))
    codes.set_value(codes[...].at[END_OF_AUDIO].multiply(3.0))
    return network


@pytest.fixture(scope="module")
def following(restless):
    """The whole pass without a cache: embeddings of a row and the index of its last to the next id and frame."""
    graphdef, state = nnx.split(restless)

    def run(x, last):
        _, _, logits, frame = _whole(graphdef, state, x, jnp.asarray(last))
        return int(logits[0, last].argmax()), frame.tolist()

    return run


@pytest.mark.parametrize("interleave", [None, (2, 3)])
def test_rows_at_different_points_are_generated_as_without_a_cache(restless, following, prompts, interleave):
    def expected(row):
        n, machine, found = int(prompts.n_b[row]), Machine(interleave), []
        x = np.pad(prompts.x[row, :n], ((0, N_ROOM - n), (0, 0)))
        while len(found) < 12 and not machine.ended:
            speaks, (text, codes) = machine.speaks, following(x, n - 1 + len(found))
            if machine.take(codes if speaks else text):
                embed, token = (restless.audio_out.embed_codes, codes) if speaks else (restless.decoder.embedding, text)
                x[n + len(found)] = embed(jnp.array(token))
                found.append(codes if speaks else [text])
        return found

    tokens = _generate(restless, prompts, 12, interleave=interleave)
    assert [_as_list(tokens, row) for row in range(3)] == [expected(row) for row in range(3)]
    assert tokens.is_audio_bn.any() and 0 < tokens.n_b.min() < tokens.n_b.max()
    for row, n in enumerate(tokens.n_b.tolist()):
        assert (tokens.ids_bn[row, n:] == MARKS.end).all() and (tokens.codes_bnk[row, n:] == -1).all()


def test_drawn_speech_depends_on_row_and_key_alone(model, prompts):
    options = {"interleave": (2, 3), "text_sampling": Sampling(1.0, 5), "audio_sampling": Sampling(1.0, 4)}
    first = _generate(model, prompts, 7, key=jax.random.key(0), **options)
    others = Placed(prompts.x.at[2].set(0.5), prompts.n_b.at[2].set(11))
    again = _generate(model, others, 7, key=jax.random.key(0), **options)
    other = _generate(model, prompts, 7, key=jax.random.key(1), **options)
    assert [_as_list(again, row) for row in range(2)] == [_as_list(first, row) for row in range(2)]
    assert _as_list(other) != _as_list(first)


def test_all_tensors_of_the_real_checkpoint_have_their_place():
    listed = json.loads((GOLDENS / "lfm2_audio_1.5b_shapes.json").read_text())
    headers = {name: jax.ShapeDtypeStruct(tuple(shape), jnp.bfloat16) for name, shape in listed}
    assert len(headers) == 931
    shapes = _shapes(REAL)
    assert sgpa_checkpoints.check(headers, sgpa_checkpoints.LFM2_AUDIO, shapes) == []
    for optional in ("codebook_offsets", "audio_loss_weights", "audio_embedding.to_logits.weight"):
        del headers[optional]
    assert sgpa_checkpoints.check(headers, sgpa_checkpoints.LFM2_AUDIO, shapes) == []
    del headers["lfm.layers.0.conv.in_proj.weight"]
    headers["depthformer.layers.3.operator.qkv_proj.weight"] = jax.ShapeDtypeStruct((1535, 1024), jnp.bfloat16)
    problems = sgpa_checkpoints.check(headers, sgpa_checkpoints.LFM2_AUDIO, shapes)
    assert len(problems) == 4 and all("in_proj" in problem or "qkv_proj" in problem for problem in problems)


def _shapes(config):
    family = family_of(config)
    network = nnx.eval_shape(lambda: family.build(family.read_config(config, None)))
    return {".".join(map(str, path)): leaf.shape for path, leaf in nnx.to_flat_state(nnx.state(network))}


def test_a_checkpoint_is_written_as_it_was_read(golden, model):
    flat = nnx.to_flat_state(nnx.state(model))
    parameters = {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}
    exported = sgpa_checkpoints.export(parameters, sgpa_checkpoints.LFM2_AUDIO)
    dropped = golden["weights"].keys() - exported.keys()
    assert exported.keys() <= golden["weights"].keys()
    assert all(np.array_equal(value, golden["weights"][name]) for name, value in exported.items())
    assert {name.rpartition(".")[2] for name in dropped if not name.startswith("audio_embedding.")} == {
        "num_batches_tracked", "codebook_offsets", "audio_loss_weights",
    }  # fmt: skip


def test_heads_that_differ_from_their_embeddings_are_refused(golden, config, tmp_path):
    weights = golden["weights"] | {
        "depth_embeddings.1.to_logits.weight": golden["weights"]["depth_embeddings.2.embedding.weight"]
    }
    with pytest.raises(sgpa_checkpoints.FormatError, match=r"depth_embeddings\.1\.to_logits\.weight.*tied"):
        _filled(config, weights, tmp_path)
