"""What every test runs under: strict JAX, eight host devices, and no network."""

import os

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["HF_HUB_OFFLINE"] = "1"

import ipaddress
import socket
from typing import Any

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

_CONNECTS = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex")}

# No timed assertions, hypothesis's own included: a busy machine is no bug.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def _is_local(family: int, address: Any) -> bool:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return address[0] == "localhost"


def _guarded(name: str) -> Any:
    def connect(self: socket.socket, address: Any) -> Any:
        if not _is_local(self.family, address):
            raise OSError(f"tests may not use the network: refused to connect to {address}")
        return _CONNECTS[name](self, address)

    return connect


# Patched here and not in a fixture: imports and fixtures of any scope are refused as well.
for _name in _CONNECTS:
    setattr(socket.socket, _name, _guarded(_name))


@pytest.fixture
def key() -> jax.Array:
    """A typed key, the same in every test."""
    return jax.random.key(0)
