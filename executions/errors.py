"""Errors that cross module borders. Each message is one line that says what is wrong and what to do."""

from __future__ import annotations


class AlakaiError(Exception):
    """Any error of ours; its text is fit to be shown to a user and holds no secret."""


class InvalidSettings(AlakaiError):
    """A missing or contradictory setting; the text names the variable and the remedy."""


class InvalidTask(AlakaiError):
    """A task message or task id that breaks section "Task message" of the contract; never echoes the input."""


class InvalidOutcome(AlakaiError):
    """A worker's callback body that says nothing usable; never echoes the input."""


class InvalidEvent(AlakaiError):
    """What stands where an event should, on the events queue or the tracking stream; never echoes the input."""


class InvalidCursor(AlakaiError):
    """A cursor of a list that is none of ours; never echoes the input."""


class StoreUnavailable(AlakaiError):
    """Redis does not answer, refuses, or is not the one we know. Nothing is known about the command's effect."""


class TooMuchContention(AlakaiError):
    """One execution was changed by others so often in a row that a change could not be committed; safe to repeat."""


class QueueUnavailable(AlakaiError):
    """The queue refused or was not reached; nothing was sent."""


class QueueUnclear(AlakaiError):
    """The queue's answer was lost: the message may or may not have been sent."""


class ArchiveUnavailable(AlakaiError):
    """S3 did not do as asked; safe to repeat. ``code`` is S3's own, empty when it did not answer."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class NotDelivered(AlakaiError):
    """A channel did not tell a notification, or nobody knows whether it did; the text says why and holds no secret.

    ``is_refusal``: the receiver was reached and will not take it. ``retry_after_ms`` is how long it asks to wait, and
    ``is_for_all`` that this is about everything that goes there.
    """

    def __init__(
        self, message: str, *, is_refusal: bool = False, retry_after_ms: int | None = None, is_for_all: bool = False
    ) -> None:
        super().__init__(message)
        self.is_refusal = is_refusal
        self.retry_after_ms = retry_after_ms
        self.is_for_all = is_for_all


class LaunchUnclear(AlakaiError):
    """The launcher's answer was lost or throttled: the same intent must be replayed, never another one."""


class LaunchRefused(AlakaiError):
    """The launcher provably did not start a worker. ``code`` is the stable error code to record.

    ``permanent`` refusals (bad configuration, access denied) end the attempt; others are tried again.
    """

    def __init__(self, message: str, *, code: str, permanent: bool) -> None:
        super().__init__(message)
        self.code = code
        self.permanent = permanent
