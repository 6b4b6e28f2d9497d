"""SAELens itself, where it is installed: it reads what we write, fires alike, and we read what it writes."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from sgpa_jax.sae import encode, export_sae, import_sae, reconstruct


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["topk", "batch_topk", "jumprelu"])
def test_saelens_agrees(random_sae, tmp_path, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sae_lens = pytest.importorskip("sae_lens", reason="SAELens is not installed; its layout is tested by formula")
    import torch

    sae = random_sae(kind)
    export_sae(sae, tmp_path / "ours", "saelens", model_name="pocket", hook_name="layers.1")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "ours")
    x = 3 * np.random.default_rng(0).standard_normal((64, 12)).astype(np.float32)
    with torch.no_grad():
        z = theirs.encode(torch.tensor(x))
        rebuilt = theirs.decode(z).numpy()
    z_bm = np.asarray(encode(sae, jnp.asarray(x)))
    np.testing.assert_array_equal(z_bm > 0, z.numpy() > 0)
    np.testing.assert_allclose(z_bm, z.numpy(), atol=1e-5)
    np.testing.assert_allclose(reconstruct(sae, jnp.asarray(x)), rebuilt, atol=1e-5)

    theirs.save_model(tmp_path / "theirs")
    np.testing.assert_array_equal(encode(import_sae(tmp_path / "theirs"), jnp.asarray(x)), z_bm)
