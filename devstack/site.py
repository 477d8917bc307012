"""What `mkdocs.yml` calls while it builds the site, for what GitHub reads otherwise than MkDocs. No page is edited.

Links that leave `docs/` (`../worker/README.md`) lead into the repository, as the site holds `docs/` only; whether the
file is there is checked by tests/unit/test_docs.py. Words after a code block's language, which tell the guides' test
what the block is for, are left out.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

_LINK = re.compile(r"\]\((?![a-z]+:|#|/)(?P<path>[^)#\s]+)(?P<fragment>#[^)\s]*)?\)")
_FENCE = re.compile(r"^(```\w+) .*$", re.MULTILINE)


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Called by MkDocs with the text of each page."""
    folder = posixpath.dirname(posixpath.join("docs", page.file.src_uri))
    return with_links_out(with_plain_fences(markdown), folder, config.extra["repository"])


def with_plain_fences(markdown: str) -> str:
    """Without what MkDocs would not take for the beginning of a code block."""
    return _FENCE.sub(r"\1", markdown)


def with_links_out(markdown: str, folder: str, repository: str) -> str:
    """The text of a page in that folder, with links to files beside `docs/` made links into the repository."""

    def link(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, match["path"]))
        return match[0] if path.startswith("docs/") else f"]({repository}/{path}{match['fragment'] or ''})"

    return _LINK.sub(link, markdown)
