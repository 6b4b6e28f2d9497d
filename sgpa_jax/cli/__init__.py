"""The command line `sgpa`: explain, align, report, doctor."""

from sgpa_jax.cli.app import app, main

__all__ = ["app", "main"]
