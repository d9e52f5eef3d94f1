"""Live logs and events of builds for processes with an event loop. leases.py has the same for threads."""

from collections.abc import AsyncGenerator
from typing import Any

import redis.asyncio

from farm.broker import bounds, keys
from farm.broker.leases import LIVE_LOG_BYTES
from farm.config import Settings

_CONNECTIONS = 16
_TIMEOUT_S = 10.0
_QUIET_S = 5.0


class LiveReader:
    """For one event loop. Methods raise redis.RedisError."""

    def __init__(self, settings: Settings) -> None:
        self._pool = redis.asyncio.BlockingConnectionPool.from_url(
            settings.redis,
            max_connections=_CONNECTIONS,
            timeout=_TIMEOUT_S,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            protocol=2,
            driver_info=None,  # most accounts may not send it
        )
        self._redis = redis.asyncio.Redis(connection_pool=self._pool)

    async def close(self) -> None:
        await self._pool.disconnect()

    async def read_log(self, label: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes of the live log from a byte offset on; empty when there is no new part."""
        if offset >= LIVE_LOG_BYTES:
            return b""
        data = await self._redis.getrange(keys.live_log(label), offset, offset + limit - 1)
        return data if isinstance(data, bytes) else data.encode()

    async def events(self) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Events as they come; None once the subscription has begun, and whenever some seconds passed without one."""
        async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(keys.EVENTS)
            yield None
            while True:
                message = await pubsub.get_message(timeout=_QUIET_S)
                event = bounds.decode_event(message["data"]) if message is not None else None
                if message is None or event is not None:
                    yield event
