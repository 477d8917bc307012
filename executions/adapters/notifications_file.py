"""The file that says who is told of outcomes, checked once at start-up, and the channels that follow from it.

Secrets stand in files of their own, which are read again when they change; this one holds none. Without it there are no
channels and nothing is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints
from redis.asyncio import Redis

from executions.adapters.github_channel import GitHubChannel
from executions.adapters.outbound import Outbound, place_of
from executions.adapters.secret_file import SecretFile
from executions.adapters.settings import Settings
from executions.adapters.settings_file import SettingsFile, StrictModel, model_from_file
from executions.adapters.slack_channel import SlackChannel
from executions.adapters.told_messages import ToldMessages
from executions.adapters.webhook_channel import CallbackChannel, WebhookChannel
from executions.delivery import DeliveryRules
from executions.errors import InvalidSettings
from executions.ports import Channel

EXAMPLE = "examples/notifications.yaml"
_WEBHOOK_SECRET_LENGTH = 16

_Seconds = Annotated[float, Field(gt=0, le=7 * 86_400, allow_inf_nan=False)]
_Path = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
_Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
_Host = Annotated[str, StringConstraints(pattern=r"^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(:[0-9]{1,5})?$")]


class WebhookSection(StrictModel):
    """``url`` gets every outcome; ``secretFile`` signs what goes to it and to the URLs that messages name."""

    url: _Url | None = None
    secret_file: _Path


class SlackSection(StrictModel):
    """``channel`` is for tasks whose message names none."""

    token_file: _Path
    channel: Annotated[str, StringConstraints(pattern=r"^[#@]?[A-Za-z0-9._-]{1,80}$")] | None = None
    api_url: _Url = "https://slack.com/api"


class GitHubSection(StrictModel):
    """The issue is named by the message (``callbacks.github``)."""

    token_file: _Path
    api_url: _Url = "https://api.github.com"


class DeliverySection(StrictModel):
    """How patient deliveries are."""

    timeout_seconds: Annotated[float, Field(gt=0, le=120, allow_inf_nan=False)] = 10
    first_wait_seconds: _Seconds = 1
    longest_wait_seconds: _Seconds = 60
    give_up_after_seconds: _Seconds = 86_400
    refused_tries: Annotated[int, Field(ge=1, le=1000)] = 8
    at_once: Annotated[int, Field(ge=1, le=64)] = 16

    @property
    def rules(self) -> DeliveryRules:
        return DeliveryRules(
            timeout_ms=_ms(self.timeout_seconds),
            first_wait_ms=_ms(self.first_wait_seconds),
            longest_wait_ms=_ms(self.longest_wait_seconds),
            give_up_ms=_ms(self.give_up_after_seconds),
            refused_tries=self.refused_tries,
            at_once=self.at_once,
        )


class NotificationsFile(StrictModel):
    """Each section switches its channel on; ``allowedHosts`` are those that ``callbacks.webhook.url`` may name."""

    webhook: WebhookSection | None = None
    allowed_hosts: Annotated[tuple[_Host, ...], Field(max_length=100)] = ()
    slack: SlackSection | None = None
    github: GitHubSection | None = None
    delivery: DeliverySection = Field(default_factory=DeliverySection)


@dataclass(frozen=True, slots=True)
class Channels:
    """What is configured."""

    channels: tuple[Channel, ...]
    rules: DeliveryRules


def open_channels(settings: Settings, redis: Redis) -> Channels | None:
    """The channels of these settings, None where nothing is told. Connects to nothing yet. Raises InvalidSettings."""
    if not settings.notifications_file:
        return None
    path = Path(settings.notifications_file)
    found = model_from_file(NotificationsFile, path, SettingsFile("the notification", "NOTIFICATIONS_FILE", EXAMPLE))
    return _Opening(settings, path, found, redis).all()


class _Opening:
    """Makes the channels of one file."""

    def __init__(self, settings: Settings, path: Path, found: NotificationsFile, redis: Redis) -> None:
        self._is_local = settings.is_local
        self._prefix = settings.executions_redis_key_prefix
        self._path = path
        self._found = found
        self._redis = redis

    def all(self) -> Channels:
        channels = (*self._webhooks(), *self._slack(), *self._github())
        if not channels:
            raise self._invalid("tells nobody; add webhook, slack or github, or unset NOTIFICATIONS_FILE")
        return Channels(channels, self._found.delivery.rules)

    def _webhooks(self) -> list[Channel]:
        section, hosts = self._found.webhook, self._found.allowed_hosts
        if section is None:
            if hosts:
                raise self._invalid("allows hosts for webhooks and has no webhook.secretFile to sign with; add it")
            return []
        if section.url is None and not hosts:
            raise self._invalid("webhook has neither an url nor allowedHosts; add one of them")
        secret = self._secret(section.secret_file, "webhook.secretFile", at_least=_WEBHOOK_SECRET_LENGTH)
        channels: list[Channel] = []
        if section.url is not None:
            self._place(section.url, "webhook.url")
            channels.append(WebhookChannel(section.url, secret, self._outbound()))
        for place in dict.fromkeys(self._places(hosts)):
            channels.append(CallbackChannel(place, secret, self._outbound(), permits_http=self._is_local))
        return channels

    def _places(self, hosts: tuple[str, ...]) -> list[str]:
        """With the port of https, and on a developer's machine of http too, where none is named."""
        schemes = ("https", "http") if self._is_local else ("https",)
        return [self._place(f"{scheme}://{host}/", "allowedHosts") for host in hosts for scheme in schemes]

    def _slack(self) -> list[Channel]:
        section = self._found.slack
        if section is None:
            return []
        self._place(section.api_url, "slack.apiUrl")
        token = self._secret(section.token_file, "slack.tokenFile")
        told = ToldMessages(self._redis, self._prefix, "slack")
        return [SlackChannel(section.api_url, section.channel, token, self._outbound(), told)]

    def _github(self) -> list[Channel]:
        section = self._found.github
        if section is None:
            return []
        self._place(section.api_url, "github.apiUrl")
        token = self._secret(section.token_file, "github.tokenFile")
        return [
            GitHubChannel(section.api_url, token, self._outbound(), ToldMessages(self._redis, self._prefix, "github"))
        ]

    def _outbound(self) -> Outbound:
        """A pool for each channel: one whose connections all hang takes nobody else's."""
        return Outbound(timeout_seconds=self._found.delivery.timeout_seconds, permits_loopback=self._is_local)

    def _place(self, url: str, field: str) -> str:
        return self._checked(lambda: place_of(url, permits_http=self._is_local), field)

    def _secret(self, path: str, field: str, *, at_least: int = 1) -> SecretFile:
        try:
            return SecretFile(self._path.parent / path, at_least=at_least)
        except InvalidSettings as error:
            raise self._invalid(f"{field}: {error}") from None

    def _checked(self, make: Callable[[], str], field: str) -> str:
        try:
            return make()
        except ValueError as error:
            raise self._invalid(f"{field} {error}") from None

    def _invalid(self, text: str) -> InvalidSettings:
        return InvalidSettings(f"the notification file {self._path.name} {text} (see {EXAMPLE})")


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
