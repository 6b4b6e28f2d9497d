"""The command line `sgpa`: explain, align, report, refold, sae, convert, verify, doctor."""

from sgpa_jax.cli.app import app, main

__all__ = ["app", "main"]
