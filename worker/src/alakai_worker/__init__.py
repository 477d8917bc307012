"""The worker's side: claim a launch, do the work, report the outcome.

Standard library only and Python 3.9 or newer, because this is put into other people's images. Never holds credentials
of the control plane: everything goes through its two callback routes. The flow is in ``worker``.
"""

from __future__ import annotations

from alakai_worker.client import Claimed
from alakai_worker.outcome import Outcome
from alakai_worker.worker import Exit, Work, run

__all__ = ["Claimed", "Exit", "Outcome", "Work", "__version__", "run"]
__version__ = "0.1.0"
