"""The page: HTML, style and script become one document with a policy that fits it."""

import base64
import functools
import hashlib
from dataclasses import dataclass
from importlib import resources

_FOLDER = "assets"


@dataclass(frozen=True)
class Page:
    """Is the page as it is sent.

    Attributes:
        html: UTF-8, with style and script inside.
        policy: Content security policy: exactly this style and this script may run, and
            nothing may be loaded from elsewhere.
    """

    html: bytes
    policy: str


@functools.cache
def load_page() -> Page:
    """Puts the page together from the files of the package."""
    style, script = _read("live.css"), _read("live.js")
    html = _read("live.html")
    html = html.replace("/* live.css */", style).replace("/* live.js */", script)
    policy = {
        "default-src": "'none'",
        "script-src": _hash_of(script),
        "style-src": _hash_of(style),
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    text = "; ".join(f"{name} {value}" for name, value in policy.items())
    return Page(html.encode(), text)


def _read(name: str) -> str:
    folder = resources.files("deeplab2_edge.runtime.serve")
    return folder.joinpath(_FOLDER, name).read_text(encoding="utf-8")


def _hash_of(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
