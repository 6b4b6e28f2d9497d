"""What all pages are: one HTML file that opens from disk, asks no network, and runs nothing but its own script."""

import base64
import hashlib
import html


def document(*, title: str, style: str, body: str, script: str = "") -> str:
    """Return a whole HTML document.

    Its content security policy lets pictures and sounds come from the file itself, and nothing run but this script and
    style, by their digests.

    Args:
        title: text, not HTML.
        style: CSS, for light and dark paper.
        body: HTML, in which all texts are escaped already.
        script: JavaScript that runs when the body is there; "" for none.
    """
    allowed = [f"script-src {_digest(script)}"] if script else []
    allowed += [f"style-src {_digest(style)}", "media-src data:", "img-src data:"]
    policy = "; ".join(["default-src 'none'", *allowed, "base-uri 'none'", "form-action 'none'"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body.strip()}
{f"<script>{script}</script>" if script else ""}
</body>
</html>
"""


def base64_of(data: bytes) -> str:
    """Return bytes as text that fits into an attribute."""
    return base64.b64encode(data).decode("ascii")


def _digest(text: str) -> str:
    return f"'sha256-{base64_of(hashlib.sha256(text.encode()).digest())}'"
