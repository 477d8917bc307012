"""The archive's objects in S3. An object is put once and never changed; putting it again finds it there.

Knows no events and no batches: names and bytes. Conditional puts are S3's ``If-None-Match: *`` (August 2024).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from executions.adapters.aws_client import AwsClient, region_from_environment
from executions.adapters.settings import Settings
from executions.errors import ArchiveUnavailable, InvalidSettings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

T = TypeVar("T")
_ANSWER_SECONDS = 20.0
_SHA256 = "sha256"
_MISSING = frozenset({"NoSuchBucket", "404"})
_THERE = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict"})
_ABSENT = frozenset({"NoSuchKey", "404"})


class S3Archive:
    """One bucket below one prefix. Names are below the prefix. Every method raises ArchiveUnavailable."""

    def __init__(self, bucket: str, prefix: str, *, region: str) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._s3: AwsClient[S3Client] = AwsClient("s3", region=region, attempts=3, answer_seconds=_ANSWER_SECONDS)

    @property
    def where(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}"

    async def check(self) -> None:
        """Raises InvalidSettings when the bucket is not there, ArchiveUnavailable when nobody can tell."""
        try:
            await self._call("look for the bucket", lambda s3: s3.list_objects_v2(Bucket=self._bucket, MaxKeys=1))
        except ArchiveUnavailable as error:
            if error.code in _MISSING:
                raise InvalidSettings(
                    f"the bucket {self._bucket} does not exist; create it or correct TASK_TRACKING_S3_BUCKET"
                ) from error
            raise

    async def put(self, name: str, body: bytes) -> None:
        """Store an object that is not there yet. One that is there must be this very one."""
        digest = hashlib.sha256(body)
        try:
            await self._call(
                "put",
                lambda s3: s3.put_object(
                    Bucket=self._bucket,
                    Key=self._key(name),
                    Body=body,
                    IfNoneMatch="*",
                    ContentType="application/x-ndjson",
                    ChecksumSHA256=base64.b64encode(digest.digest()).decode(),
                    Metadata={_SHA256: digest.hexdigest()},
                ),
            )
        except ArchiveUnavailable as error:
            if error.code not in _THERE:
                raise
            if await self.read(name) != body:
                raise ArchiveUnavailable(
                    f"{self.where}/{name} is there with another content; look who writes into the archive's prefix",
                    code="Conflict",
                ) from error

    async def read(self, name: str) -> bytes | None:
        """None where there is no such object."""
        try:
            return await self._call(
                "get", lambda s3: s3.get_object(Bucket=self._bucket, Key=self._key(name))["Body"].read()
            )
        except ArchiveUnavailable as error:
            if error.code in _ABSENT:
                return None
            raise

    async def names(self, below: str = "") -> list[str]:
        """Names of all objects whose names begin with ``below``."""

        def listed(s3: S3Client) -> list[str]:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._key(below))
            return [item["Key"] for page in pages for item in page.get("Contents", [])]

        return [key.removeprefix(f"{self._prefix}/") for key in await self._call("list", listed)]

    async def close(self) -> None:
        await self._s3.close()

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}"

    async def _call(self, operation: str, use: Callable[[S3Client], T]) -> T:
        try:
            return await self._s3.call(use)
        except (BotoCoreError, ClientError, ResponseParserError, OSError) as error:
            code = error.response.get("Error", {}).get("Code", "unknown") if isinstance(error, ClientError) else ""
            # "from None": a traceback would bring AWS's own text back.
            raise ArchiveUnavailable(
                f"archive {self.where}: {operation} failed ({code or type(error).__name__}); "
                "check TASK_TRACKING_S3_BUCKET, the AWS variables and rights",
                code=code,
            ) from None


def open_archive(settings: Settings) -> S3Archive:
    """The archive of these settings; connects on first use."""
    return S3Archive(
        settings.task_tracking_s3_bucket, settings.task_tracking_s3_prefix, region=region_from_environment()
    )


async def checked(archive: S3Archive) -> str | None:
    """At start-up: None when the bucket is there, else why nobody knows. Raises InvalidSettings when it is not."""
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await archive.check()
    except (ArchiveUnavailable, TimeoutError) as error:
        return str(error) or "no answer"
    return None
