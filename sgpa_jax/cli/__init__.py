"""The command line `sgpa`: explain, align, report, convert, verify, doctor."""

from sgpa_jax.cli.app import app, main

__all__ = ["app", "main"]
