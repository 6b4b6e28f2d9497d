"""The versions that decide our numbers, as every explanation records them and `sgpa doctor` shows them."""

import functools
import platform
from importlib.metadata import PackageNotFoundError, version

from sgpa_jax import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "soundfile", "soxr", "tokenizers")


def versions() -> dict[str, str]:
    """Return name → version of this package, Python and the libraries behind our numbers."""
    libraries = {name: _installed(name) for name in _PACKAGES}
    return {"sgpa_jax": __version__, "python": platform.python_version(), **libraries}


@functools.cache
def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
