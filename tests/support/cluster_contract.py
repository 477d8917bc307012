"""What every cluster does, in memory or on a real API server. Subclasses provide the fixture ``cluster``."""

from __future__ import annotations

from typing import Any

import pytest

from executions.cluster import AlreadyExists, Cluster, Conflict, Invalid, NotFound
from executions.conditions import Why
from executions.names import FINALIZER
from executions.notices import Notice, event_from_notice
from executions.policy import Policy
from executions.record import Execution
from executions.resource import (
    Observed,
    manifest_from_execution,
    observed_from_body,
    protected,
    released,
    status_digest,
    status_from_execution,
)
from tests.support.builders import pending, running

POLICY = Policy()


def status(execution: Execution, observed: Observed, *, sequence: int = 1) -> dict[str, Any]:
    numbered = execution.with_state(sequence=sequence)
    return status_from_execution(
        numbered, POLICY, observed_generation=observed.generation, unknown_ms=observed.created_ms
    )


class ClusterContract:
    """One test per promise of ``cluster.Cluster``."""

    @pytest.fixture
    def namespace_name(self) -> str:
        return "default"

    async def create(self, cluster: Cluster, namespace_name: str, task_id: str = "task-1") -> Observed:
        return observed_from_body(await cluster.create(manifest_from_execution(pending(task_id), namespace_name)))

    async def test_what_the_mirror_creates_is_protected_and_shows_pending(
        self, cluster: Cluster, namespace_name: str
    ) -> None:
        created = await self.create(cluster, namespace_name)
        assert (created.name, created.task_id, created.made_by) == ("task-1", "task-1", "incarnation-1")
        assert (created.phase, created.incarnation, created.is_protected) == ("Pending", None, True)
        assert created.uid
        assert created.resource_version > 0
        assert observed_from_body(await cluster.read("task-1")) == created

    async def test_a_second_object_of_a_name_is_refused(self, cluster: Cluster, namespace_name: str) -> None:
        await self.create(cluster, namespace_name)
        with pytest.raises(AlreadyExists):
            await self.create(cluster, namespace_name)

    async def test_what_is_not_there_is_not_found(self, cluster: Cluster) -> None:
        with pytest.raises(NotFound):
            await cluster.read("nobody")
        with pytest.raises(NotFound):
            await cluster.patch_status("nobody", {"phase": "Failed"})
        with pytest.raises(NotFound):
            await cluster.delete("nobody", uid="1", resource_version=1)

    async def test_a_status_is_kept_as_it_was_written(self, cluster: Cluster, namespace_name: str) -> None:
        created = await self.create(cluster, namespace_name)
        written = status(running(), created)
        kept = observed_from_body(await cluster.patch_status("task-1", written))
        assert kept.status_digest == status_digest(written)
        assert (kept.phase, kept.attempt, kept.sequence, kept.incarnation) == ("Running", 1, 1, "incarnation-1")
        assert kept.generation == created.generation
        assert kept.resource_version > created.resource_version

    async def test_a_none_removes_what_an_earlier_status_said(self, cluster: Cluster, namespace_name: str) -> None:
        created = await self.create(cluster, namespace_name)
        await cluster.patch_status("task-1", status(running(), created))
        body = await cluster.patch_status("task-1", {"workerId": None})
        assert "workerId" not in body["status"]
        assert body["status"]["phase"] == "Running"

    async def test_a_status_never_goes_back_within_an_incarnation(self, cluster: Cluster, namespace_name: str) -> None:
        created = await self.create(cluster, namespace_name)
        await cluster.patch_status("task-1", status(running(), created, sequence=5))
        with pytest.raises(Invalid):
            await cluster.patch_status("task-1", status(running(), created, sequence=4))
        anew = running().with_state(incarnation="incarnation-2")
        kept = observed_from_body(await cluster.patch_status("task-1", status(anew, created, sequence=1)))
        assert (kept.incarnation, kept.sequence) == ("incarnation-2", 1)

    async def test_finalizers_change_only_on_the_object_that_was_seen(
        self, cluster: Cluster, namespace_name: str
    ) -> None:
        created = await self.create(cluster, namespace_name)
        await cluster.patch_status("task-1", status(running(), created))
        with pytest.raises(Invalid):
            await cluster.patch("task-1", released(created))
        seen = observed_from_body(await cluster.read("task-1"))
        bare = observed_from_body(await cluster.patch("task-1", released(seen)))
        assert bare.finalizers == ()
        again = observed_from_body(await cluster.patch("task-1", protected(bare)))
        assert again.finalizers == (FINALIZER,)

    async def test_only_the_object_that_was_seen_is_deleted(self, cluster: Cluster, namespace_name: str) -> None:
        created = await self.create(cluster, namespace_name)
        bare = observed_from_body(await cluster.patch("task-1", released(created)))
        with pytest.raises(Conflict):
            await cluster.delete("task-1", uid=bare.uid, resource_version=created.resource_version)
        with pytest.raises(Conflict):
            await cluster.delete("task-1", uid="another", resource_version=bare.resource_version)
        await cluster.delete("task-1", uid=bare.uid, resource_version=bare.resource_version)
        with pytest.raises(NotFound):
            await cluster.read("task-1")

    async def test_a_protected_object_stays_until_it_is_released(self, cluster: Cluster, namespace_name: str) -> None:
        created = await self.create(cluster, namespace_name)
        await cluster.delete("task-1", uid=created.uid, resource_version=created.resource_version)
        dying = observed_from_body(await cluster.read("task-1"))
        assert dying.is_deleting
        await cluster.patch("task-1", released(dying))
        with pytest.raises(NotFound):
            await cluster.read("task-1")

    async def test_every_object_is_listed(self, cluster: Cluster, namespace_name: str) -> None:
        for number in range(3):
            await self.create(cluster, namespace_name, f"task-{number}")
        assert {body["metadata"]["name"] async for body in cluster.list()} == {"task-0", "task-1", "task-2"}

    async def test_an_event_is_told_once(self, cluster: Cluster, namespace_name: str) -> None:
        created = await self.create(cluster, namespace_name)
        notice = Notice("1/ended", Why("WorkerLost", "attempt 1 failed: the worker is gone"))
        event = event_from_notice(notice, created, namespace=namespace_name, now_ms=1_700_000_000_000)
        await cluster.create_event(event)
        with pytest.raises(AlreadyExists):
            await cluster.create_event(event)

    async def test_the_definition_is_there_to_stay(self, cluster: Cluster) -> None:
        await cluster.check()
        assert await cluster.definition_is_leaving() is False

    async def test_config_maps_keep_what_they_are_given(self, cluster: Cluster) -> None:
        with pytest.raises(NotFound):
            await cluster.read_config_map("epoch")
        with pytest.raises(NotFound):
            await cluster.update_config_map("epoch", {"epoch": "1"})
        await cluster.create_config_map("epoch", {"epoch": "1"})
        with pytest.raises(AlreadyExists):
            await cluster.create_config_map("epoch", {"epoch": "2"})
        await cluster.update_config_map("epoch", {"more": "x"})
        assert await cluster.read_config_map("epoch") == {"epoch": "1", "more": "x"}
