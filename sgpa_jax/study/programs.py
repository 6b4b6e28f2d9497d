"""Room for compiled programs: each maps memory, and Linux allows a process some 65,530 mappings.

A study meets recordings of many lengths, and each length has programs of its own; after some dozens of recordings a
process that keeps them all cannot compile another one.
"""

import gc
from pathlib import Path

import jax

_MAPS, _LIMIT = Path("/proc/self/maps"), Path("/proc/sys/vm/max_map_count")


def keep_room_for_programs() -> None:
    """Forget all compiled programs once half of the mappings are taken; nothing to do on other systems than Linux."""
    if not (_MAPS.exists() and _LIMIT.exists()):
        return
    if _MAPS.read_bytes().count(b"\n") > int(_LIMIT.read_text()) // 2:
        jax.clear_caches()
        gc.collect()
