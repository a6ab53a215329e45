import asyncio
import contextlib
import errno
from datetime import UTC, datetime
from pathlib import Path

import pytest

from layover.adapters.buildkit import embedded
from layover.adapters.buildkit.daemon_config import RegistryAccess
from layover.adapters.buildkit.embedded import EmbeddedBuilder
from layover.builds.errors import BuilderUnhealthy


@pytest.mark.anyio
async def test_a_daemon_that_cannot_be_run_is_tried_again_whatever_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = asyncio.Semaphore(0)

    async def fail(*_arguments: object, **_options: object) -> None:
        tries.release()
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(embedded, "_find_engines", lambda binary: binary)
    monkeypatch.setattr(embedded, "_FIRST_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", fail)
    builder = EmbeddedBuilder(
        tmp_path / "buildkit", RegistryAccess("127.0.0.1:5000"), lambda: datetime.now(UTC)
    )
    running = asyncio.create_task(builder.run())
    try:
        async with asyncio.timeout(10):
            for _ in range(3):
                await tries.acquire()
            with pytest.raises(BuilderUnhealthy, match="Too many open files"):
                await builder.check()
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def test_the_daemon_knows_nothing_that_opens_the_servers_stores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets = (
        *("LAYOVER_ADMIN_TOKEN", "DEPOT_TOKEN", "AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_KEY"),
        *("GOOGLE_APPLICATION_CREDENTIALS", "PGPASSWORD"),
    )
    for name in (*secrets, "HTTPS_PROXY"):
        monkeypatch.setenv(name, "secret")
    environment = embedded._environment()
    assert set(secrets).isdisjoint(environment)
    assert environment["HTTPS_PROXY"] == "secret"
