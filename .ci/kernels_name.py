"""Does transformers import from the repository root, where a folder has the name of a package that it probes for?

A distribution `kernels`, faked with a version that the installed transformers accepts, stands on the path as Hugging
Face's would. With our plain folder the import has to reach the fake; with an `__init__.py` in the folder it has to
fail, or else this check could not notice anything.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers.utils.import_utils import KERNELS_MIN_VERSION

ROOT = Path(__file__).resolve().parent.parent
FAKE = """
__version__ = "fake"

def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return lambda *args, **kwargs: lambda decorated: decorated
"""
PROBE = """
from transformers import AutoProcessor
from transformers.utils.import_utils import is_kernels_available
import kernels
assert is_kernels_available(), "the fake is not viable for this transformers"
assert kernels.__version__ == "fake", kernels.__file__
"""


def main() -> None:
    """Probe both folders and end with an error if either answer is wrong."""
    with tempfile.TemporaryDirectory() as scratch:
        site = Path(scratch, "site")
        _write_fake(site)
        ours = _probe(ROOT, site)
        if ours.returncode:
            sys.exit(f"transformers does not import from the repository root:\n{ours.stderr}")
        shadowing = Path(scratch, "shadowing")
        (shadowing / "kernels").mkdir(parents=True)
        (shadowing / "kernels" / "__init__.py").touch()
        theirs = _probe(shadowing, site)
        if "ImportError" not in theirs.stderr:
            sys.exit(
                f"a package that shadows `kernels` should break transformers, so this check is blind:\n{theirs.stderr}"
            )
    print(f"AutoProcessor imports beside kernels {KERNELS_MIN_VERSION}, and would not with kernels/__init__.py")


def _write_fake(site: Path) -> None:
    package = site / "kernels"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(FAKE)
    metadata = site / f"kernels-{KERNELS_MIN_VERSION}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kernels\nVersion: {KERNELS_MIN_VERSION}\n")


def _probe(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-c", PROBE], cwd=folder, env=environment, capture_output=True, text=True)


if __name__ == "__main__":
    main()
