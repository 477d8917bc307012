"""Whether the message of a failed image pull speaks of something that the next pull would meet too."""

from __future__ import annotations

import re

_MAY_WORK_LATER = re.compile(
    r"time.?out|timed out|deadline exceeded|connection (?:reset|refused)|toomanyrequests|rate.?limit|"
    r"temporar|unavailable|no such host|\bEOF\b|\b5\d\d\b|no space left|request canceled",
    re.IGNORECASE,
)
_NEVER_WORKS = re.compile(
    r"not found|manifest unknown|does not exist|denied|unauthori[sz]ed|forbidden|\b40[134]\b|not authori[sz]ed|"
    r"no basic auth|invalid reference|no match(?:ing manifest)? for platform|"
    r"does not contain descriptor matching platform",
    re.IGNORECASE,
)


def fails_for_good(said: str) -> bool:
    """True only when the text names a lasting cause (no such image, no access) and no passing one. A doubt is a no."""
    return bool(_NEVER_WORKS.search(said)) and not _MAY_WORK_LATER.search(said)
