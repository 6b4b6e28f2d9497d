"""Bring the manifest of the shipped folders up to date: `python -m train.manifest`, run from `checkpoints/`.

Hashes are computed; what the folders were made from and how good they are is written into it by hand and kept.
"""

import hashlib
import json
from pathlib import Path

from sgpa_jax.files import atomic_write

SHIPPED = Path(__file__).parents[1] / "sgpa_checkpoints"
MANIFEST = SHIPPED / "manifest.json"


def main() -> None:
    """Rewrite `manifest.json` with the hashes of the files that are there."""
    manifest = (
        json.loads(MANIFEST.read_text()) if MANIFEST.is_file() else {"schema": "sgpa-jax/manifest/1", "folders": {}}
    )
    folders = sorted(path for path in SHIPPED.iterdir() if any(path.glob("*.json")))  # others are code
    manifest["folders"] = {
        folder.name: {
            **manifest["folders"].get(folder.name, {}),
            "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())},
        }
        for folder in folders
    }
    atomic_write(MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
