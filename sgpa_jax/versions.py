"""The versions that decide our numbers, as every explanation records them and `sgpa doctor` shows them."""

import platform
from importlib.metadata import PackageNotFoundError, version

from sgpa_jax import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "soundfile", "soxr", "tokenizers")


def versions() -> dict[str, str]:
    """Return name → version of this package, Python and the libraries behind our numbers."""
    found = {"sgpa_jax": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
