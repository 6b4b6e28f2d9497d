"""Chat formats: the ids of upstream's own processors and algorithms, and the owner of every position."""

import json

import numpy as np
import pytest
import sgpa_checkpoints
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoProcessor, PreTrainedTokenizerFast, Qwen2AudioProcessor, WhisperFeatureExtractor

from sgpa_jax.errors import CheckpointError, UsageError
from sgpa_jax.models.chat import LFM2AudioChat, chat_format
from sgpa_jax.models.messages import clips_of

POCKET = sgpa_checkpoints.shipped_folder("pocket")
MARKERS = {
    "qwen2_audio": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
    "lfm2_audio": ("<|pad|>", "<|startoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|text_end|>"),
    "audioflamingo3": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<sound>"),
    "voxtral": ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AUDIO]", "[BEGIN_AUDIO]"),
}
TEXT = "user\n\n what\n\n colour?\nAudio 1: system user assistant\nYou are a helpful assistant.  Wie heißt du?\n "


def text(content):
    return {"type": "text", "text": content}


def audio(clip: object = "clip"):
    return {"type": "audio", "audio": clip}


CONVERSATIONS = {
    "question": ([{"role": "user", "content": [audio(), text("What colour is the lamp?")]}], [5]),
    "text alone": ([{"role": "user", "content": "what colour ?"}], []),
    "system": ([{"role": "system", "content": "Perform ASR."}, {"role": "user", "content": [audio()]}], [3]),
    "several turns and clips": (
        [
            {"role": "user", "content": [audio("a"), audio("b"), text("which ?")]},
            {"role": "assistant", "content": "the  red\nlamp"},
            {"role": "user", "content": [text("and here ? "), audio("c"), text(" "), text("Wie heißt du?")]},
        ],
        [4, 1, 7],
    ),
    "history at the end": (
        [{"role": "user", "content": [audio()]}, {"role": "assistant", "content": [text("red")]}],
        [2],
    ),
    "white space": (
        [
            {"role": "system", "content": " \n"},
            {"role": "user", "content": [text("\n\n  what "), audio(), text("\n colour ?\n\n")]},
        ],
        [3],
    ),
}


def write_tokenizer(folder, markers, **saved):
    """Train a byte-level tokenizer on a line of text, small enough to read and large enough to merge across pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=list(markers), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in saved.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return tokenizer


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folders = {"pocket": POCKET}
    for family, markers in MARKERS.items():
        folders[family] = tmp_path_factory.mktemp(family)
        write_tokenizer(folders[family], markers)
    return folders


@pytest.fixture(scope="module")
def processors(folders):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folders["qwen2_audio"] / "tokenizer.json"))
    return {
        "pocket": AutoProcessor.from_pretrained(POCKET),
        "qwen2_audio": Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=8), tokenizer),
    }


@pytest.fixture(scope="module")
def lfm2(folders) -> LFM2AudioChat:
    chat = chat_format("lfm2_audio", folders["lfm2_audio"])
    assert isinstance(chat, LFM2AudioChat)
    return chat


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("messages, n_audio", CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("name", ["pocket", "qwen2_audio"])
def test_qwen2_audio_gives_the_ids_of_its_processor(folders, processors, name, messages, n_audio):
    processor = processors[name]
    expected = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    for n in n_audio:
        expected = expected.replace("<|AUDIO|>", "<placeholder>" * n, 1)
    expected = processor.tokenizer(expected.replace("<placeholder>", "<|AUDIO|>"), add_special_tokens=False).input_ids
    chat = chat_format("qwen2_audio", folders[name])
    prompt = chat.layout(messages, n_audio)
    assert prompt.ids_t.tolist() == expected
    assert (prompt.clip_t >= 0).tolist() == [token == chat.audio_id for token in expected]


def test_qwen2_audio_names_every_position(folders):
    prompt = chat_format("qwen2_audio", POCKET).layout(
        [{"role": "user", "content": [audio(), text("what colour ?")]}], [2]
    )
    pieces = Tokenizer.from_file(str(POCKET / "tokenizer.json"))
    header = ["<|im_start|>", "system", "you", "are", "a", "helpful", "assistant", ".", "<|im_end|>"]
    clip = ["audio", "1", ":", "<|audio_bos|>", "<|AUDIO|>", "<|AUDIO|>", "<|audio_eos|>"]
    user = ["<|im_start|>", "user", *clip, "what", "colour", "?", "<|im_end|>"]
    opened = ["<|im_start|>", "assistant"]
    assert [pieces.id_to_token(token) for token in prompt.ids_t] == header + user + opened
    assert prompt.roles == ("system", "user", "assistant")
    assert prompt.turn_t.tolist() == [0] * len(header) + [1] * len(user) + [2] * len(opened)
    assert prompt.clip_t.tolist() == [-1] * (len(header) + 6) + [0, 0] + [-1] * 7
    assert prompt.place_t.tolist() == [0] * (len(header) + 6) + [0, 1] + [0] * 7
    assert np.flatnonzero(prompt.is_content_t).tolist() == [len(header) + 9 + k for k in range(3)]
    assert all(array.dtype == np.int32 for array in (prompt.ids_t, prompt.clip_t, prompt.place_t, prompt.turn_t))


def test_lfm2_audio_tokenises_each_piece_alone(folders, lfm2):
    messages, n_audio = CONVERSATIONS["several turns and clips"]
    tokenizer = Tokenizer.from_file(str(folders["lfm2_audio"] / "tokenizer.json"))
    pieces = [
        ("<|startoftext|>", -1, False),
        ("<|im_start|>user\n", 0, False),
        (4, 0, False),
        (1, 0, False),
        ("which ?", 0, True),
        ("<|im_end|>\n", 0, False),
        ("<|im_start|>assistant\n", 1, False),
        ("the  red\nlamp", 1, True),
        ("<|im_end|>\n", 1, False),
        ("<|im_start|>user\n", 2, False),
        ("and here ? ", 2, True),
        (7, 2, False),
        (" ", 2, True),
        ("Wie heißt du?", 2, True),
        ("<|im_end|>\n", 2, False),
        ("<|im_start|>assistant\n", 3, False),
    ]
    ids, turns, content = [], [], []
    for piece, turn, is_content in pieces:
        new = [0] * piece if isinstance(piece, int) else tokenizer.encode(piece, add_special_tokens=False).ids
        ids, turns, content = ids + new, turns + [turn] * len(new), content + [is_content] * len(new)
    prompt = lfm2.layout(messages, n_audio)
    assert prompt.ids_t.tolist() == ids
    assert prompt.turn_t.tolist() == turns
    assert prompt.is_content_t.tolist() == content
    assert prompt.clip_t[prompt.clip_t >= 0].tolist() == [0] * 4 + [1] + [2] * 7
    assert prompt.place_t[prompt.clip_t >= 0].tolist() == [0, 1, 2, 3, 0, 0, 1, 2, 3, 4, 5, 6]
    assert prompt.roles == ("user", "assistant", "user", "assistant")


def test_lfm2_audio_reads_its_ids_from_the_tokenizer(lfm2):
    names = MARKERS["lfm2_audio"]
    assert lfm2.audio_id is None
    assert lfm2.end_ids == (names.index("<|im_end|>"),)
    assert (lfm2.audio_start_id, lfm2.text_end_id) == (names.index("<|audio_start|>"), names.index("<|text_end|>"))


def test_audio_flamingo3_puts_a_turns_clip_before_its_text(folders):
    chat = chat_format("audioflamingo3", folders["audioflamingo3"])
    prompt = chat.layout([{"role": "user", "content": [text("what "), audio(), text("colour?")]}], [2])
    expected = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<sound><sound>what colour?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompt.ids_t.tolist() == chat.tokenizer.encode(expected, add_special_tokens=False).ids
    assert chat.text(prompt.ids_t[prompt.is_content_t].tolist()) == "what colour?"
    with pytest.raises(UsageError, match="several clips"):
        chat.layout([{"role": "user", "content": [audio(), audio()]}], [1, 1])


def test_voxtral_goes_from_user_to_assistant_and_back(folders):
    """The ids are those of mistral-common 1.13.1's `encode_chat_completion` for the same tokenizer."""
    chat = chat_format("voxtral", folders["voxtral"])
    messages = [
        {"role": "user", "content": [text("what"), text(" colour"), audio(), audio(), text("which\n?")]},
        {"role": "assistant", "content": "the  first.  "},
        {"role": "user", "content": "and now?"},
    ]
    prompt = chat.layout(messages, [2, 1])
    pieces = [
        ("<s>", -1), ("[INST]", 0), ("what\n\n colour", 0), ("[BEGIN_AUDIO]", 0), ("[AUDIO][AUDIO]", 0),
        ("[BEGIN_AUDIO]", 0), ("[AUDIO]", 0), ("which\n?", 0), ("[/INST]", 1), ("the  first.", 1), ("</s>", 1),
        ("[INST]", 2), ("and now?", 2), ("[/INST]", 3),
    ]  # fmt: skip
    encoded = [(chat.tokenizer.encode(piece, add_special_tokens=False).ids, turn) for piece, turn in pieces]
    assert prompt.ids_t.tolist() == [token for ids, _ in encoded for token in ids]
    assert prompt.turn_t.tolist() == [turn for ids, turn in encoded for _ in ids]
    assert prompt.roles == ("user", "assistant", "user", "assistant")
    for roles in (["system", "user"], ["user", "user"], ["user", "assistant"], ["assistant", "user"]):
        with pytest.raises(UsageError, match="alternation"):
            chat.layout([{"role": role, "content": "what"} for role in roles], [])


@given(
    turns=st.lists(
        st.tuples(
            st.sampled_from(["system", "user", "assistant"]),
            st.lists(st.integers(0, 9) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=4),
        ),
        min_size=1,
        max_size=4,
    ),
    family=st.sampled_from(["qwen2_audio", "lfm2_audio"]),
)
def test_every_clip_has_its_positions_in_order(folders, turns, family):
    messages = [
        {"role": role, "content": [audio(part) if isinstance(part, int) else text(part) for part in parts]}
        for role, parts in turns
    ]
    n_audio = clips_of(messages)
    prompt = chat_format(family, folders[family]).layout(messages, n_audio)
    assert [place for clip in range(len(n_audio)) for place in prompt.place_t[prompt.clip_t == clip]] == [
        place for n in n_audio for place in range(n)
    ]
    assert not prompt.is_content_t[prompt.clip_t >= 0].any()
    assert (np.diff(prompt.turn_t) >= 0).all()
    assert prompt.roles[-(len(turns) + 1) :] == (*(role for role, _ in turns), "assistant")
    assert prompt.turn_t[-1] == len(prompt.roles) - 1


def test_a_token_that_is_partly_the_formats_own_is_no_content(folders):
    chat = chat_format("qwen2_audio", folders["qwen2_audio"])
    prompt = chat.layout([{"role": "user", "content": "\n what"}], [])
    content = chat.text(prompt.ids_t[prompt.is_content_t].tolist())
    assert "user\n\n" in chat.text(prompt.ids_t.tolist())
    assert content == " what"


@pytest.mark.parametrize("family", MARKERS)
def test_markers_in_text_are_refused(folders, family):
    chat = chat_format(family, folders[family])
    for marker in MARKERS[family]:
        for content in (f"what {marker}?", [text("what"), text(marker[:4]), text(marker[4:])]):
            with pytest.raises(UsageError, match="marker"):
                chat.layout([{"role": "user", "content": content}], [])
        with pytest.raises(UsageError, match="marker"):
            chat.response_ids(f"red{marker}")


@pytest.mark.parametrize(
    "messages, reason",
    [
        ([], "no turns"),
        (["hello"], "a turn is"),
        ([{"role": "tool", "content": "x"}], "role"),
        ([{"role": "user", "content": None}], "content"),
        ([{"role": "user", "content": ["x"]}], "part"),
        ([{"role": "user", "content": [{"type": "image", "image": "x"}]}], "part"),
        ([{"role": "user", "content": [{"type": "text", "text": 3}]}], "part"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "part"),
    ],
)
def test_malformed_messages_are_refused(lfm2, messages, reason):
    with pytest.raises(UsageError, match=reason):
        lfm2.layout(messages, [])


def test_responses_and_their_text(folders, lfm2):
    pocket = chat_format("qwen2_audio", POCKET)
    assert pocket.text(pocket.response_ids("blue lamp")) == "blue lamp"
    assert pocket.knows("what colour ?") and not pocket.knows("who wrote hamlet ?")
    assert lfm2.text(lfm2.response_ids(" Wie heißt\ndu? ✓")) == " Wie heißt\ndu? ✓"
    assert lfm2.knows("who wrote hamlet ?")
    for response in ("", "antidisestablishmentarianism"):
        with pytest.raises(UsageError, match="response"):
            pocket.response_ids(response)


def test_ends_come_from_the_generation_config(tmp_path):
    write_tokenizer(tmp_path, MARKERS["qwen2_audio"])
    for given_ids, expected in ((None, (2,)), (2, (2,)), ([0, 2], (0, 2))):
        (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": given_ids}))
        assert chat_format("qwen2_audio", tmp_path).end_ids == expected
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 77]}))
    with pytest.raises(CheckpointError, match=r"\[77\]"):
        chat_format("qwen2_audio", tmp_path)


def test_saved_padding_and_truncation_are_left_out(tmp_path):
    tokenizer = write_tokenizer(tmp_path, MARKERS["qwen2_audio"])
    ids = chat_format("qwen2_audio", tmp_path).layout([{"role": "user", "content": TEXT}], []).ids_t
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=500)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = chat_format("qwen2_audio", tmp_path).layout([{"role": "user", "content": TEXT}], []).ids_t
    assert again.tolist() == ids.tolist()


def test_incomplete_and_contradictory_folders_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json"):
        chat_format("qwen2_audio", tmp_path)
    write_tokenizer(tmp_path, MARKERS["lfm2_audio"])
    with pytest.raises(CheckpointError, match=r"lacks the tokens <\|AUDIO\|>, <\|audio_bos\|>"):
        chat_format("qwen2_audio", tmp_path)
    with pytest.raises(UsageError, match="qwen2_audio"):
        chat_format("qwen_audio", tmp_path)
    for key in ("audio_token_index", "audio_token_id"):
        write_tokenizer(tmp_path, MARKERS["qwen2_audio"], config={key: 4})
        with pytest.raises(CheckpointError, match=r"token 4 in config\.json, but 3"):
            chat_format("qwen2_audio", tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        chat_format("qwen2_audio", tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="not a readable tokenizer"):
        chat_format("qwen2_audio", tmp_path)


def test_text_that_is_no_unicode_is_refused(lfm2):
    for ask in (lfm2.response_ids, lfm2.knows, lambda text: lfm2.layout([{"role": "user", "content": text}], [])):
        with pytest.raises(UsageError, match="Unicode"):
            ask("what \udcff?")
