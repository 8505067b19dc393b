"""The files of the page, and the page as one file for fixed sentences."""

import functools
import importlib.resources
import json
import re
from typing import Any

# in the order in which they are joined: a module stands behind those that it imports
SCRIPTS = ("dom.js", "api.js", "link.js", "export.js", "alignment.js", "steps.js", "tree.js", "forced.js", "main.js")
INDEX = "index.html"
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
FOLDER = "/explore/"  # under which a server has the files, but for the page itself
PATHS = {"/": INDEX, FOLDER + "style.css": "style.css", **{FOLDER + name: name for name in SCRIPTS}}
# what the browser lets the page do: no code, style or address but the server's own
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
OFFLINE_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


@functools.cache
def static_file(name: str) -> str:
    """The text of a file of the page."""
    return importlib.resources.files("s2s_jax.explore").joinpath("static", name).read_text(encoding="utf-8")


def content_type(name: str) -> str:
    """The content type of a file of the page."""
    return TYPES[name.rpartition(".")[2]] + "; charset=utf-8"


def offline_page(recorded: dict[str, Any]) -> str:
    """The page as one file that needs no server and no network.

    Args:
        recorded: `models`, as /v1/models lists them, and `answers`, a list of `path`, `body` and `answer`: what the
            page gets in place of a server's answers.
    """
    page, style = static_file(INDEX), static_file("style.css")
    data = json.dumps(recorded, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{OFFLINE_POLICY}">\n<style>\n{style}</style>\n'
        f'<script type="application/json" id="recorded">{data}</script>\n'
        f'<script type="module">\n{joined_scripts()}</script>\n'
    )
    kept, _, rest = page.partition("<!-- files -->")
    return kept + head + rest.partition("<!-- end of files -->")[2].lstrip("\n")


def joined_scripts() -> str:
    """All modules as one, without their imports and exports; no two have a top-level name in common."""
    text = "\n".join(static_file(name) for name in SCRIPTS)
    text = re.sub(r"^import [^;]*;\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^export ", "", text, flags=re.MULTILINE).replace("</script", "<\\/script")
