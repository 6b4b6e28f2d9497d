"""The spoken-command world: right answers, their evidence, and nothing to be guessed without hearing."""

from collections import Counter

import numpy as np
import pytest
from train import world

SLOT_OF = {value: slot for slot, values in world.SLOTS.items() for value in values}


def draw(split, n, **fixed):
    rng = np.random.default_rng(7)
    return [world.sample_command(rng, split, **fixed) for _ in range(n)]


@pytest.fixture(scope="module")
def commands():
    return draw("train", 4000)


def test_splits_share_no_held_out_pair(commands):
    assert all(not world.held_out_pairs(command) for command in commands)
    assert all(world.held_out_pairs(command) for command in draw("test", 400))


@pytest.mark.parametrize(
    ("first", "second", "held"),
    [
        ("device", "colour", 8),
        ("device", "room", 8),
        ("device", "number", 12),
        ("name", "day", 7),
        ("colour", "colour", 8),
        ("room", "day", 0),
    ],
)
def test_about_an_eighth_of_the_pairs_is_held_out(first, second, held):
    pairs = [(one, other) for one in world.SLOTS[first] for other in world.SLOTS[second]]
    assert sum(world.is_held_out((first, second), pair) for pair in pairs) == held


def test_commands_are_short_and_mixed_as_intended(commands):
    assert {len(command.words) for command in commands} <= set(range(4, 12))
    shares = Counter(command.category for command in commands)
    assert 0.27 < shares["binding"] / 4000 < 0.33
    assert 0.21 < (shares["negation"] + shares["correction"]) / 4000 < 0.29


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_answer_is_likelier_than_another(split):
    """Without hearing, a question about a slot can only be answered at chance."""
    rng = np.random.default_rng(1)
    answers = {}
    for command in draw(split, 5000):
        for question in world.questions(rng, command):
            if question.evidence and question.category != "several":
                answers.setdefault(SLOT_OF.get(question.answer[0], "sound"), Counter())[question.answer[0]] += 1
    assert set(answers) == {*world.SLOTS, "sound"}
    for slot, counts in answers.items():
        n = len(world.SLOTS.get(slot, world.SOUNDS))
        assert len(counts) == n
        assert max(counts.values()) / counts.total() < 1.35 / n, slot
        assert min(counts.values()) / counts.total() > 0.65 / n, slot


def test_evidence_points_at_the_spoken_answer(commands):
    rng = np.random.default_rng(2)
    for command in commands[:800]:
        asked = world.questions(rng, command)
        assert len({question.text for question in asked}) == len(asked)
        for question in asked:
            everything = set(range(len(command.words)))
            assert world.answer_given(question, everything, command.sound is not None) == question.answer
            for word, needed in zip(question.answer, question.evidence, strict=bool(question.evidence)):
                spoken = command.sound if needed == (world.SOUND_EVIDENCE,) else command.words[needed[-1]]
                assert word == spoken


def test_what_is_taken_back_is_never_the_answer(commands):
    rng = np.random.default_rng(3)
    for command in commands:
        taken_back = {fact.value for fact in command.retracted}
        for question in world.questions(rng, command) if taken_back else ():
            assert not taken_back & set(question.answer)


def test_every_missing_evidence_word_makes_the_answer_unknown(commands):
    rng = np.random.default_rng(4)
    for command in commands[:300]:
        for question in world.questions(rng, command):
            if len(question.evidence) != 1:
                continue
            (needed,) = question.evidence
            assert world.answer_given(question, set(needed), world.SOUND_EVIDENCE in needed) == question.answer
            for gone in needed:
                rest = set(range(11)) - {gone}
                assert world.answer_given(question, rest, gone != world.SOUND_EVIDENCE) == ("unknown",)


def test_several_answers_say_unknown_in_place():
    question = world.Question("what to do ?", ("lamp", "red"), ((2,), (3,)), "several")
    assert world.answer_given(question, {0, 1, 3}, False) == ("unknown", "red")
    assert world.answer_given(question, {0, 1}, False) == ("unknown",)


def test_probe_needs_speech():
    question = world.Question(world.PROBE, ("yes",), (), "domain")
    assert world.answer_given(question, {0}, False) == ("yes",)
    assert world.answer_given(question, set(), True) == ("no",)


def test_binding_needs_the_device_and_its_own_value():
    rng = np.random.default_rng(5)
    for command in draw("test", 50, category="binding"):
        asked = [question for question in world.questions(rng, command) if question.category == "binding"]
        assert len(asked) == 2
        for question in asked:
            ((device, value),) = question.evidence
            assert command.words[device] in question.text
            assert device < value


def test_foreign_questions_are_never_answered():
    drawn = world.foreign_questions(np.random.default_rng(6), 5)
    assert [question.answer for question in drawn] == [("no",)] + [("unknown",)] * 4


def test_every_word_has_an_id(commands):
    rng = np.random.default_rng(8)
    unknown = world.TOKEN_IDS["<unk>"]
    for command in commands[:500]:
        assert unknown not in world.token_ids(" ".join(command.words))
        for question in world.questions(rng, command):
            assert (unknown in world.token_ids(question.text)) == ("<unk>" in question.text)
            assert unknown not in world.token_ids(" ".join(question.answer))


def test_chat_format_is_cut_into_tokens():
    text = "<|im_start|>user\nAudio 1: <|audio_bos|><|AUDIO|><|audio_eos|>\nWhat colour?<|im_end|>"
    assert world.tokenise(text) == [
        *("<|im_start|>", "user", "audio", "1", ":", "<|audio_bos|>", "<|AUDIO|>", "<|audio_eos|>"),
        *("what", "colour", "?", "<|im_end|>"),
    ]


def command(text, category, *, values, retracted=()):
    """A command from its text, the indices of the values that hold and of those taken back."""
    words = tuple(text.split())
    devices = [i for i in values if SLOT_OF[words[i]] == "device"]
    facts = [
        world.Fact(SLOT_OF[words[i]], words[i], i, max((d for d in devices if d < i), default=None)) for i in values
    ]
    taken_back = tuple(world.Fact(SLOT_OF[words[i]], words[i], i) for i in retracted)
    return world.Command(words, tuple(facts), taken_back, category, None)


def settled(command, text, evidence, absent, mode):
    present = [i not in absent for i in range(len(command.words))]
    answer = tuple(command.words[needed[-1]] for needed in evidence)
    category = "several" if len(evidence) > 1 else command.category
    return world.is_settled(command, world.Question(text, answer, evidence, category), present, mode=mode)


def test_a_lost_correction_settles_nothing():
    spoken = command("make the lamp red no wait blue", "correction", values=(2, 6), retracted=(3,))
    for mode in ("silence", "delete"):
        assert not settled(spoken, "what colour ?", ((6,),), {4, 5, 6}, mode)
        assert settled(spoken, "what colour ?", ((6,),), {5, 6}, mode)
        assert settled(spoken, "what colour ?", ((6,),), {3, 4, 5, 6}, mode)
        assert settled(spoken, "which device ?", ((2,),), {2, 4, 5, 6}, mode)


def test_a_negation_settles_that_the_first_value_is_wrong():
    spoken = command("do not make the lamp red make it blue", "negation", values=(4, 8), retracted=(5,))
    assert settled(spoken, "what colour ?", ((8,),), {6, 7, 8}, "delete")
    assert not settled(spoken, "what colour ?", ((8,),), {1, 6, 7, 8}, "delete")


def test_cutting_out_words_can_bind_a_device_to_a_wrong_value():
    spoken = command("the lamp is red and the fan is green", "binding", values=(1, 3, 6, 8))
    lamp = ("colour of the lamp ?", ((1, 3),))
    assert not settled(spoken, *lamp, {3, 4, 5, 6, 7}, "delete")
    assert settled(spoken, *lamp, {3, 4, 5, 6, 7}, "silence")
    assert settled(spoken, *lamp, {3}, "delete")
    assert not settled(spoken, "what to do ?", ((1,), (3,)), {3}, "delete")
