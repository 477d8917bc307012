"""Removes from a text what must not stand in a log line, for workers and for the control plane alike."""

from __future__ import annotations

import re

TEXT_LIMIT = 512
_SECRETS = re.compile(
    r"""(?ix)
    # A name that says so, and its value: quoted, or up to the next space, perhaps after a scheme.
    ((?:token|secret|password|passwd|passphrase|authorization|credentials?|signature|cookie
      |(?:api|access|private|secret|signing)[_-]?key)
      [\\"']*\s*[=:]\s*)
      (?:b?\\*"[^"]*"? | b?\\*'[^']*'? | (?:(?:bearer|basic|digest|token)\s+)?[^\s"'&]+)
    | (\bbearer\s+)[^\s"']+
    # Passwords and tokens in URLs.
    | (://[^\s/:@]*:)[^\s/]+(?=@) | (://)[^\s/:@]{20,}(?=@)
    # Tokens that are known by their looks: JWT, GitHub, Slack, AWS, Google, model providers, private keys.
    | \beyJ[\w-]+\.[\w-]+\.[\w-]*
    | \b(?:gh[opsru]_|github_pat_)\w{16,} | \bxox[a-z]-[\w-]{8,} | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | \bya29\.[\w-]+ | \bAIza[\w-]{30,} | \bsk-[\w-]{16,}
    | -----BEGIN[^-]*PRIVATE\sKEY-----.*?(?:-----END[^-]*-----|$)
    """
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")


def sanitised(text: str) -> str:
    """Text fit for a log line: no secrets that can be recognised, no control or direction characters, cut."""
    # Cleaned first: a control character within a secret would hide it from the pattern.
    return _SECRETS.sub(_mask, _CONTROL.sub(" ", text))[:TEXT_LIMIT]


def _mask(match: re.Match[str]) -> str:
    return f"{match[match.lastindex] if match.lastindex else ''}***"
