"""Who answers for a project, and so who sees its executions on the dashboard: from a file, by project.

The file is read by ``adapters/visibility_file.py``. An event without responsible users is for everybody who may sign
in. Never says who may sign in: that is ``api``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

EVERY_PROJECT = "*"


@dataclass(frozen=True, slots=True)
class Visibility:
    """Responsible users by project; the most exact pattern wins alone."""

    projects: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def responsible_users(self, project: str | None) -> Sequence[str]:
        """Empty where nobody is named."""
        owner = (project or "").partition("/")[0]
        for pattern in (project or "", f"{owner}/*", EVERY_PROJECT):
            if pattern in self.projects:
                return self.projects[pattern]
        return ()

    def sees(self, email: str, project: str | None, told: object) -> bool:
        """Whether a person sees an event that tells ``told`` of its visibility; where it tells nothing, the file does.

        Others write events too. What cannot be read as a list of people is for nobody: it was meant to restrict.
        """
        if told is None or told == {}:
            return may_see(email, self.responsible_users(project))
        users = told.get("responsibleUsers") if isinstance(told, dict) else None
        if not isinstance(users, list) or not all(isinstance(user, str) for user in users):
            return False
        return may_see(email, users)


def may_see(email: str, responsible_users: Sequence[str]) -> bool:
    """Addresses are compared without regard to case."""
    return not responsible_users or email.lower() in (user.lower() for user in responsible_users)
