"""The waveform engine: games whose absent players change what the encoder hears, and so all that follows it.

The audio of every coalition is encoded by itself, many at a time. What comes before all players in the prompt is the
same for all and run once, what comes behind the audio is short, and the last layer computes only the rows that predict
the response (`blocks.py`). Players that are text are absent at the decoder's input, and coalitions that differ in them
alone are encoded once where they meet in a batch. Recording and tokens are arguments of the two compiled programs, one
for the encoder and one for the decoder, so that another recording of the same bucket compiles nothing.
Axes: `B` coalitions at once, `C` coalitions, `P` players, `R` tokens of the response, `F` mel frames, `A` audio
positions, `T` tokens behind the prefix, `U` tokens of the prefix, `K` tokens of text behind the prefix.
"""

import functools
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sgpa_jax.audio import round_up
from sgpa_jax.errors import UsageError, unknown_name
from sgpa_jax.games.hearing import Hearing, hearing_of
from sgpa_jax.games.readout import Readout
from sgpa_jax.games.tokens import TEXT_ABSENCES, neutral_rows, text_owners, text_rows
from sgpa_jax.games.waveform_programs import Script, hear, read
from sgpa_jax.models import Model, ModelInputs, gathered, only_clip
from sgpa_jax.players import Players

CACHE_BYTES, MEMORY_BYTES = 2**24, 2**32
"""What the activations of coalitions computed at once may take: a CPU is quickest where they stay in its cache."""

_TOKEN_STEP, _RESPONSE_STEP = 8, 4


class WaveformEngine:
    """Log-probabilities of a response under coalitions of the players of its prompt and of the one recording in it.

    Args:
        model: the audio language model.
        inputs: prompt, clip and response.
        players: spans of the clip, at the clip's own rate, and text of the prompt.
        absence: of players that are heard, one of `HEARD_ABSENCES`.
        text_absence: of players that are text, one of `TEXT_ABSENCES`.

    Raises:
        PlayerError: a player's text is not in the prompt.
        UsageError: an unknown absence, one that the model does not offer, no player that is heard, or a conversation of
            more than one recording.
    """

    def __init__(
        self, model: Model, inputs: ModelInputs, players: Players, *, absence: str, text_absence: str = "attention"
    ) -> None:
        if text_absence not in TEXT_ABSENCES:
            raise unknown_name("absence of text", text_absence, TEXT_ABSENCES)
        if not players.heard:
            raise UsageError("the players are all text, which is absent at the decoder's input: expected one to hear")
        # Text players change none of what is compiled where there are none of them.
        self.model, self.text_absence = model, text_absence if players.text else "attention"
        self.heard, self.n_players = list(players.heard), len(players)
        heard = replace(players, players=tuple(players[index] for index in players.heard))
        self._listen(inputs, heard, absence)
        self.n_targets = len(inputs.ids_t) - inputs.response_start
        self.script, self.owner_k = _script(model, inputs, players, self.text_absence)

    def _listen(self, inputs: ModelInputs, heard: Players, absence: str) -> None:
        """Take the recording and the players that are heard in it."""
        self.hearing = hearing_of(self.model, only_clip(inputs), heard, absence)

    @functools.cached_property
    def _placed_script(self) -> Script:
        return jax.tree.map(jnp.asarray, self.script)

    @property
    def is_audible_p(self) -> Bool[np.ndarray, " P"]:
        """Which players change anything: coalitions that differ in the others alone are one and the same."""
        changes_p = np.ones(self.n_players, bool)
        changes_p[self.heard] = self.hearing.is_audible_p
        return changes_p

    def n_frames(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Mel frames of each coalition; those of similar length are best computed together."""
        return self.hearing.n_frames(masks_cp[:, self.heard])

    def frames_alone(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Mel frames of the bucket of each coalition by itself."""
        n_frames_c = self.n_frames(masks_cp)
        bucket_of = {n: self.hearing.bucket(n) for n in np.unique(n_frames_c).tolist()}
        return np.array([bucket_of[n] for n in n_frames_c.tolist()], np.int64)

    def n_audio(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """Tokens of each coalition from the audio's first to its last."""
        return np.asarray(self.model.config.encoder.n_tokens(jnp.asarray(self.n_frames(masks_cp))))

    def length(self, masks_cp: Bool[np.ndarray, "C P"]) -> Int[np.ndarray, " C"]:
        """By what coalitions are best sorted: by frames, and those together that sound the same."""
        if len(self.heard) == self.n_players:
            return self.n_frames(masks_cp)
        rows = np.column_stack([self.n_frames(masks_cp), masks_cp[:, self.heard]])
        return np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)

    def microbatch(self, n_bytes: int | None = None, *, readout: Readout | None = None) -> int:
        """How many coalitions to compute at once, so that their activations take about `n_bytes` on a device.

        Without a number: what the devices are quickest with. A power of two for each along the mesh's axis `data`.
        """
        buckets, n_read = self.buckets(np.ones((1, self.n_players), bool)), 0
        if readout is not None and readout.positions == "audio":
            n_read = 4 * self._n_tokens(*buckets, readout=readout) * readout.n_values(self.model.config.decoder.width)
        return coalitions_at_once(self.model, max(self._coalition_bytes(*buckets), n_read), n_bytes)

    def log_probs(self, masks_bp: Bool[np.ndarray, "B P"], *, readout: Readout | None = None) -> Float[Array, "B R"]:
        """Log-probability of every token of the response, or what a readout reads, of every coalition, all at once."""
        audio_bad, n_audio_b = self._audio(masks_bp)
        there_bk = np.append(masks_bp, np.ones((len(masks_bp), 1), bool), axis=1)[:, self.owner_k]
        script_b, n_tokens = np.zeros(len(masks_bp), np.int32), self._n_tokens(*self.buckets(masks_bp), readout=readout)
        found_br = read(
            self.model.decoder, self._placed_script, audio_bad, n_audio_b, there_bk, script_b, readout,
            n_tokens=n_tokens, text_absence=self.text_absence, mesh=self.model.mesh,
        )  # fmt: skip
        return found_br if readout is not None else found_br[:, : self.n_targets]

    def _audio(self, masks_bp: Bool[np.ndarray, "B P"]) -> tuple[Float[Array, "B A D"], Int[Array, " B"]]:
        """Encode coalitions, those that sound the same once; the number of their positions that are real."""
        rows, row_b = self._different(masks_bp)
        audio_bad, n_audio_b = self._encoded(self.hearing, masks_bp[:, self.heard], rows)
        return audio_bad if row_b is None else audio_bad[row_b], n_audio_b

    def _encoded(
        self, hearing: Hearing, masks_bh: Bool[np.ndarray, "B H"], rows: Int[np.ndarray, " N"]
    ) -> tuple[Float[Array, "N A D"], Int[Array, " B"]]:
        """Encode what some of the rows sound like; the number of real positions of every one."""
        n_frames_b = hearing.n_frames(masks_bh).astype(np.int32)
        heard = hearing.hear(masks_bh[rows], hearing.bucket(int(n_frames_b.max())))
        model = self.model
        audio_nad = hear(model.stacked_encoder, heard, n_frames_b[rows], is_settled=hearing.is_settled, mesh=model.mesh)
        return audio_nad, self.model.config.encoder.n_tokens(jnp.asarray(n_frames_b))

    def _different(
        self, masks_bp: Bool[np.ndarray, "B P"]
    ) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " B"] | None]:
        """Rows that sound different, and which of these each row sounds like; None: as they stand.

        Rows on several devices stay where they are.
        """
        if len(self.heard) == self.n_players or self.model.mesh is not None:
            return np.arange(len(masks_bp)), None
        return different_rows(masks_bp[:, self.heard])

    def cost(self, masks_cp: Bool[np.ndarray, "C P"]) -> dict[str, Any]:
        """Return what different coalitions would run; see `speech_cost`."""
        masks_cp, size = masks_cp[np.argsort(self.length(masks_cp), kind="stable")], self.microbatch()
        buckets = [self.buckets(masks_cp[i : i + size]) for i in range(0, len(masks_cp), size)]
        n_prefix, n_text = int(self.script.n_prefix), int(self.script.n_text_n[0])
        n_audio = int(self.n_audio(masks_cp).sum())
        return {
            "decoder_tokens": n_prefix * len(buckets) + n_audio + n_text * len(masks_cp),
            "tokens_one_by_one": (n_prefix + n_text) * len(masks_cp) + n_audio,
            "bytes_at_once": size * max(self._coalition_bytes(*n) for n in {*buckets}),
            "runs": len(buckets),
            "shapes": [
                f"{size} coalitions of {' + '.join(map(str, n))} frames, {self._n_tokens(*n)} tokens behind {n_prefix}"
                for n in sorted({*buckets})
            ],
        }

    def buckets(self, masks_cp: Bool[np.ndarray, "C P"]) -> tuple[int, ...]:
        """Frames computed for each recording where these coalitions are computed together."""
        return (self.hearing.bucket(int(self.n_frames(masks_cp).max())),)

    def _n_tokens(self, *buckets: int, n_between: int = 0, readout: Readout | None = None) -> int:
        """T of buckets of frames, with so many tokens of text between them; what is behind the audio may be unread."""
        at_audio = readout is not None and readout.positions == "audio"
        config, n_text = self.model.config, int((self.script.n_between_n if at_audio else self.script.n_text_n)[0])
        n_audio = sum(config.encoder.n_tokens(n_frames - config.front_end.room_frames) for n_frames in buckets)
        return round_up(n_audio + n_between + n_text, _TOKEN_STEP)

    def _coalition_bytes(self, *buckets: int) -> int:
        n_prefix, n_targets = len(self.script.prefix_ud), self.script.targets_nr.shape[1]
        return coalition_bytes(self.model, max(buckets), self._n_tokens(*buckets), n_prefix, n_targets)


def coalition_bytes(model: Model, n_frames: int, n_tokens: int, n_prefix: int, n_targets: int) -> int:
    """About the activations of a coalition where they take most: in a layer, or in the head."""
    decoder = model.config.decoder
    in_layer = n_tokens * (2 * decoder.ffn_width + 6 * decoder.width + decoder.n_heads * (n_tokens + n_prefix))
    return 4 * max(model.config.n_activations(n_frames), in_layer, n_targets * decoder.vocab_size)


def coalitions_at_once(model: Model, bytes_each: int, n_bytes: int | None = None) -> int:
    """How many coalitions to compute at once: see `WaveformEngine.microbatch`."""
    if n_bytes is None:
        n_bytes = CACHE_BYTES if model.platform == "cpu" else MEMORY_BYTES
    n_devices = 1 if model.mesh is None else model.mesh.shape["data"]
    return n_devices << (max(n_bytes // bytes_each, 1).bit_length() - 1)


def different_rows(masks_bp: Bool[np.ndarray, "B P"]) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " B"]]:
    """Return the first of equal rows, and which of these each row equals; a power of two, so that few are compiled."""
    _, rows, row_b = np.unique(masks_bp, axis=0, return_index=True, return_inverse=True)
    size = min(len(masks_bp), 1 << (len(rows) - 1).bit_length())
    return np.pad(rows, (0, size - len(rows)), mode="edge"), row_b.reshape(-1)


def _script(
    model: Model, inputs: ModelInputs, players: Players, text_absence: str
) -> tuple[Script, Int[np.ndarray, " K"]]:
    """Return the script, and who owns its text behind the prefix; the number of players, where nobody does."""
    audio_t, owner_t = np.flatnonzero(inputs.clip_t >= 0), text_owners(inputs, players)
    n_prefix = min(int(audio_t[0]), int(np.argmax(np.append(owner_t >= 0, True))))
    place_k = np.concatenate([np.arange(n_prefix, audio_t[0]), np.arange(audio_t[-1] + 1, len(inputs.ids_t) - 1)])
    rows = instead = np.asarray(gathered(text_rows(model, inputs)))
    if text_absence == "replace":
        instead = np.asarray(gathered(neutral_rows(model, inputs, players)))
    prefix, text, absent = (_padded(part, _TOKEN_STEP) for part in (rows[:n_prefix], rows[place_k], instead[place_k]))
    targets = inputs.ids_t[inputs.response_start :]
    lengths = [np.array([length], np.int32) for length in (audio_t[0] - n_prefix, len(place_k), len(targets))]
    script = Script(
        prefix, text[None], absent[None], _padded(targets, _RESPONSE_STEP)[None], np.int32(n_prefix), *lengths
    )
    owner_k = _padded(owner_t[place_k] + 1, _TOKEN_STEP) - 1
    return script, np.where(owner_k < 0, len(players), owner_k)


def _padded(rows: np.ndarray, step: int) -> np.ndarray:
    return np.pad(rows, ((0, round_up(len(rows), step) - len(rows)), *((0, 0),) * (rows.ndim - 1)))
