"""What an autoencoder is and how it is trained, with two recipes: the paper's, and ours.

`ard_paper` is AR&D's (arXiv 2602.22253): TopK with 250 latents a token, plain squared error, Adam at 1e-5, 4096 tokens
a step, 100,000 steps. What the paper leaves open (biases, scale of the inputs, start of the weights) is as everywhere
here. `recommended` adds what keeps latents alive and lets far fewer steps do: AuxK, unit decoder rows, a warm-up and a
decay, a learning rate that falls with the square root of the dictionary (Gao et al., arXiv 2406.04093).
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from sgpa_jax.errors import UsageError, unknown_name

KINDS = ("topk", "batch_topk", "matryoshka", "jumprelu")
NORMALISATIONS = ("none", "scale", "centre")
PRESETS = ("ard_paper", "recommended")


@dataclass(frozen=True, kw_only=True)
class SAEConfig:
    """An autoencoder; `width` D, `n_latents` M.

    Attributes:
        kind: `topk`, k latents for every token; `batch_topk`, k on average over a batch; `matryoshka`, the same with
            nested dictionaries; `jumprelu`, a learnt threshold for every latent.
        k: how many latents a token has, exactly or on average.
        pre_bias: whether the decoder's bias is taken off before encoding.
        prefixes: of a matryoshka, how many latents each of its dictionaries has, the last all; empty: 1/16, 1/4, all.
        compute: dtype of the matrix products, `float32` or `bfloat16`; sums and selection are float32.
    """

    width: int
    n_latents: int
    k: int
    kind: str = "topk"
    pre_bias: bool = True
    prefixes: tuple[int, ...] = ()
    compute: str = "float32"

    def __post_init__(self):
        if self.kind not in KINDS:
            raise unknown_name("kind of autoencoder", self.kind, KINDS)
        if self.compute not in ("float32", "bfloat16"):
            raise unknown_name("dtype", self.compute, ("float32", "bfloat16"))
        if self.width < 1 or not 1 <= self.k <= self.n_latents:
            raise UsageError(
                f"an autoencoder of width {self.width} with {self.k} of {self.n_latents} latents cannot be; give a "
                "width of at least 1, and k from 1 to the number of latents"
            )
        if self.prefixes and (list(self.prefixes) != sorted({*self.prefixes, self.n_latents}) or self.prefixes[0] < 1):
            raise UsageError(f"prefixes {self.prefixes} do not rise from 1 or more to {self.n_latents}, the latents")

    @property
    def nested(self) -> tuple[int, ...]:
        """Sizes of the nested dictionaries; one of all latents where there are none."""
        if self.kind != "matryoshka":
            return (self.n_latents,)
        return self.prefixes or tuple(sorted({max(1, self.n_latents // n) for n in (16, 4, 1)}))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How an autoencoder is trained.

    Attributes:
        n_steps, batch: optimiser steps, and tokens in each.
        learning_rate: Adam's, after `warmup_steps` of a linear rise and before `decay_steps` of a linear fall to zero.
        clip_norm: the largest norm of the gradient; None leaves it.
        aux_weight, aux_k: weight of AuxK's loss and how many dead latents it uses a token.
        dead_after: tokens without firing after which a latent counts as dead.
        unit_norm: keep decoder rows at norm one, and gradients at right angles to them.
        sparsity_weight, bandwidth: of JumpReLU: weight of (L0 / k - 1)², and width of the step's stand-in gradient.
        normalisation: of the inputs: `none`; `scale`, E|x|² = D; `centre`, the mean is taken off, then variance D.
        fit_on: tokens that the normalisation and the decoder's bias are fitted on.
        seed: decides the weights' start and the order of the data.
    """

    n_steps: int
    batch: int
    learning_rate: float
    warmup_steps: int = 0
    decay_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = None
    aux_weight: float = 0.0
    aux_k: int = 256
    dead_after: int = 10_000_000
    unit_norm: bool = True
    sparsity_weight: float = 1.0
    bandwidth: float = 0.1
    normalisation: str = "scale"
    fit_on: int = 32_768
    seed: int = 0

    def __post_init__(self):
        if self.normalisation not in NORMALISATIONS:
            raise unknown_name("normalisation", self.normalisation, NORMALISATIONS)
        if min(self.n_steps, self.batch, self.aux_k, self.fit_on) < 1 or self.learning_rate <= 0:
            raise UsageError(
                f"{self.n_steps} steps of {self.batch} tokens at a learning rate of {self.learning_rate} train "
                "nothing; give positive numbers"
            )
        if self.warmup_steps + self.decay_steps > self.n_steps:
            raise UsageError(
                f"{self.warmup_steps} steps of warm-up and {self.decay_steps} of decay are more than the "
                f"{self.n_steps} steps there are; give fewer"
            )


@dataclass(frozen=True)
class Recipe:
    """An autoencoder and its training."""

    sae: SAEConfig
    training: TrainConfig

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"sae": asdict(self.sae), "training": asdict(self.training)}

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> "Recipe":
        """From what `to_dict` gave."""
        sae, training = dict(told["sae"]), dict(told["training"])
        sae["prefixes"], training["betas"] = tuple(sae["prefixes"]), tuple(training["betas"])
        return cls(SAEConfig(**sae), TrainConfig(**training))


def ard_paper(width: int, *, expansion: int = 8, k: int = 250, n_steps: int = 100_000, seed: int = 0) -> Recipe:
    """AR&D's autoencoder for a residual stream of `width`; on 4096 that is 32,768 latents."""
    sae = SAEConfig(width=width, n_latents=expansion * width, k=k)
    return Recipe(sae, TrainConfig(n_steps=n_steps, batch=4096, learning_rate=1e-5, unit_norm=False, seed=seed))


def recommended(width: int, *, expansion: int = 8, k: int = 64, n_steps: int = 20_000, seed: int = 0) -> Recipe:
    """The recipe to begin with."""
    sae, batch = SAEConfig(width=width, n_latents=expansion * width, k=k), 4096
    training = TrainConfig(
        n_steps=n_steps, batch=batch, learning_rate=2e-4 * (2**14 / sae.n_latents) ** 0.5,
        warmup_steps=min(1000, n_steps // 10), decay_steps=n_steps // 5, clip_norm=1.0, aux_weight=1 / 32,
        aux_k=min(256, max(1, width // 2)), dead_after=min(10_000_000, max(1, n_steps * batch // 10)),
        normalisation="centre", seed=seed,
    )  # fmt: skip
    return Recipe(sae, training)


def recipe_of(
    preset: str,
    width: int,
    *,
    expansion: int = 8,
    kind: str = "topk",
    k: int | None = None,
    n_steps: int | None = None,
    batch: int | None = None,
    learning_rate: float | None = None,
    compute: str = "float32",
    seed: int = 0,
) -> Recipe:
    """A preset by name, with what is given in place of its own numbers.

    Raises:
        UsageError: there is no such preset, or what comes out cannot be trained.
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    begin = ard_paper if preset == "ard_paper" else recommended
    sizes = {name: value for name, value in {"k": k, "n_steps": n_steps}.items() if value is not None}
    recipe = begin(width, expansion=expansion, seed=seed, **sizes)
    given = {
        name: value for name, value in {"batch": batch, "learning_rate": learning_rate}.items() if value is not None
    }
    return Recipe(replace(recipe.sae, kind=kind, compute=compute), replace(recipe.training, **given))
