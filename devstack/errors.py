"""What can go wrong on a developer's machine, each told in one message that says what to do."""

from __future__ import annotations


class DevstackError(Exception):
    """Shown to the user as it is, without a traceback."""


class NothingFound(DevstackError):
    """No rung of a ladder gave the binary; the message lists every rung and why it failed."""


class PortTaken(DevstackError):
    """Somebody else listens on the port that a component wants."""

    def __init__(self, port: int) -> None:
        super().__init__(f"port {port} is taken by another process")
        self.port = port


class StartFailed(DevstackError):
    """A component stopped, or was not ready in time; the message holds the end of its log."""
