"""Content on its way to a store: gathered into blocks, hashed while it is being written."""

from collections.abc import AsyncIterator


async def blocks(chunks: AsyncIterator[bytes], size_bytes: int) -> AsyncIterator[bytes]:
    """Gather what arrives in small pieces into blocks that are worth a thread's while."""
    pieces: list[bytes] = []
    gathered = 0
    async for chunk in chunks:
        pieces.append(chunk)
        gathered += len(chunk)
        if gathered >= size_bytes:
            yield b"".join(pieces)
            pieces, gathered = [], 0
    if gathered:
        yield b"".join(pieces)
