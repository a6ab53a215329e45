"""A BuildKit daemon from the settings, run by somebody else."""

import asyncio
from pathlib import Path

from layover.adapters.buildkit.probe import probe
from layover.builds.builders import BuilderConfig, Credentials, Platforms
from layover.builds.errors import BuilderUnhealthy


class RemoteBuilder:
    """The Builder of a BuilderConfig.

    Its certificates are read anew each time, so that one which was renewed needs no restart.
    """

    def __init__(self, config: BuilderConfig) -> None:
        self._config = config

    @property
    def name(self) -> str:
        return self._config.name

    @property
    def address(self) -> str:
        return self._config.address

    @property
    def server_name(self) -> str:
        return self._config.server_name

    async def check(self) -> Platforms:
        credentials = await self._read()
        found = await probe(self._config.address, self._config.server_name, credentials)
        # Who names the platforms in the settings knows better what is fast there.
        return Platforms(native=self._config.platforms) if self._config.platforms else found

    async def credentials(self, build_id: str) -> Credentials | None:
        return await self._read()

    async def _read(self) -> Credentials | None:
        config = self._config
        if config.ca_cert is None:
            return None
        try:
            return await asyncio.to_thread(_read_files, config.ca_cert, config.cert, config.key)
        except (OSError, UnicodeDecodeError) as error:
            raise BuilderUnhealthy(f"cannot read its certificates: {error}") from error


def _read_files(ca_cert: str, cert: str | None, key: str | None) -> Credentials:
    return Credentials(
        ca_cert=Path(ca_cert).read_text(),
        cert=Path(cert).read_text() if cert else None,
        key=Path(key).read_text() if key else None,
    )
