"""Does a wheel hold exactly our three packages, with the data files that they need and nothing of the trainers?"""

import sys
import zipfile
from fnmatch import fnmatch

PACKAGES = {"sgpa_jax", "sgpa_kernels", "sgpa_checkpoints"}
NEEDED = (
    "sgpa_jax/py.typed",
    "sgpa_jax/report/*.html",
    "sgpa_jax/report/concept.js",
    "sgpa_jax/study/page.html",
    "sgpa_checkpoints/manifest.json",
    "sgpa_checkpoints/pocket/model.safetensors",
    "sgpa_checkpoints/pocket/tokenizer.json",
    "sgpa_checkpoints/pocket_aligner/*.safetensors",
    "sgpa_checkpoints/pocket_lfm2/model.safetensors",
    "sgpa_checkpoints/pocket_sounds/model.safetensors",
    "sgpa_checkpoints/study_corpus/manifest.jsonl",
    "sgpa_checkpoints/study_corpus/*.flac",
    "sgpa_checkpoints/demo/demo.wav",
    "sgpa_checkpoints/demo/demo.json",
)


def main() -> None:
    """Check the wheel named on the command line and end with an error if it is not as it should be."""
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        names = wheel.namelist()
        size = sum(info.compress_size for info in wheel.infolist())
    packages = {top for top in (name.split("/")[0] for name in names) if not top.endswith(".dist-info")}
    if packages != PACKAGES:
        sys.exit(f"the wheel holds {sorted(packages)}, expected {sorted(PACKAGES)}")
    missing = [pattern for pattern in NEEDED if not any(fnmatch(name, pattern) for name in names)]
    if missing:
        sys.exit(f"the wheel lacks {', '.join(missing)}")
    print(f"{sys.argv[1]}: {len(names)} files, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
