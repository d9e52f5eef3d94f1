"""The register of workers, in Redis: the facts that each announces, and the queues from which it must stop taking work.

Each role has a part of its own: the set `farm:workers:<role>`, the documents `farm:worker:<role>:<node>`, and the hash
`farm:off:<role>`. An account of the broker writes only the first two of its own role, so a document proves nothing
about workers of another role. A worker is identified by its role and its node name; a process that serves several
queues is registered once for each.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import redis

from farm import queues, wire
from farm.broker import bounds, keys, scripts
from farm.model.worker import WorkerFacts

_log = logging.getLogger(__name__)

_WORKER_KEPT_S = 30
_NAME_BYTES = 255
# Only the scheduler runs it. A role's workers can fill only their own part of the register.
_PRUNE = """
redis.call('DEL', KEYS[2])
local kind = redis.call('TYPE', KEYS[1])['ok']
if kind ~= 'set' and kind ~= 'none' then redis.call('DEL', KEYS[1]) return end
local over = redis.call('SCARD', KEYS[1]) - tonumber(ARGV[2])
if over > 10 * tonumber(ARGV[2]) then redis.call('UNLINK', KEYS[1]) return end
local bytes = kind == 'set' and redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0) or 0
if bytes > 4194304 then redis.call('UNLINK', KEYS[1]) return end
if over > 0 then redis.call('SPOP', KEYS[1], over) end
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if #name > tonumber(ARGV[3]) or redis.call('EXISTS', ARGV[1] .. name) == 0 then redis.call('SREM', KEYS[1], name) end
end
"""


class WorkerRegister:
    """The part of Leases for workers. Safe to use from several threads."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._prune = client.register_script(scripts.of_scheduler(_PRUNE))
        self._strangers: set[tuple[str, str]] = set()

    # --- the scheduler's side -----------------------------------------------------------------------------------

    def turn_off(self, off: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Stop workers from taking work from queues, by role and node name. All other workers take from all queues."""
        with self._redis.pipeline() as pipe:
            for role in queues.WORKER_ROLES:
                pipe.delete(keys.off(role))
                if nodes := off.get(role):
                    pipe.hset(keys.off(role), mapping={node: json.dumps([*names]) for node, names in nodes.items()})
            pipe.execute()

    def prune_workers(self) -> None:
        """Remove from the register the names of workers that are gone, and names that are too long or too many."""
        for role in queues.WORKER_ROLES:
            args: list[str | int] = [keys.worker(role, ""), bounds.WORKERS_OF_A_ROLE, _NAME_BYTES]
            self._prune(keys=[keys.workers(role), keys.NONE], args=args)

    # --- a worker's side ----------------------------------------------------------------------------------------

    def announce(self, facts: WorkerFacts) -> None:
        """Register this worker in each of its roles for 30 s; repeat it more often than that."""
        with self._redis.pipeline() as pipe:
            for role in facts.queues:
                consumes = None if facts.consumes is None else tuple(name for name in facts.consumes if name == role)
                document = wire.to_json(replace(facts, queues=(role,), consumes=consumes))
                pipe.sadd(keys.workers(role), facts.name)
                pipe.set(keys.worker(role, facts.name), document, ex=_WORKER_KEPT_S)
            pipe.execute()

    def is_announced(self, name: str, roles: Sequence[str]) -> bool:
        """Whether this worker is registered in each of its roles."""
        return int(self._redis.exists(*(keys.worker(role, name) for role in roles))) == len(roles)

    def retire(self, name: str, roles: Sequence[str] = queues.WORKER_ROLES) -> None:
        """Remove this worker, which takes no more work, from the register."""
        self._redis.delete(*(keys.worker(role, name) for role in roles))

    def turned_off(self, name: str, roles: Sequence[str]) -> frozenset[str]:
        """The queues from which this worker must stop taking work, as the scheduler wrote."""
        with self._redis.pipeline(transaction=False) as pipe:
            for role in roles:
                pipe.hget(keys.off(role), name)
            answers = pipe.execute()
        return frozenset(name for answer in answers if answer is not None for name in _names(answer))

    # --- for all processes --------------------------------------------------------------------------------------

    def workers(self) -> tuple[WorkerFacts, ...]:
        """The workers announced within the last 30 s, by name; a worker of several roles is there once for each."""
        known = [
            (bytes(name).decode(errors="replace"), role)
            for role in queues.WORKER_ROLES
            for name in self._names(role)
            if len(name) <= _NAME_BYTES
        ]
        known.sort()
        with self._redis.pipeline(transaction=False) as pipe:
            for name, role in known:
                pipe.getrange(keys.worker(role, name), 0, bounds.FACTS_BYTES)
            documents = pipe.execute(raise_on_error=False) if known else []
        found = (
            self._facts(role, name, document)
            for (name, role), answer in zip(known, documents, strict=True)
            if (document := _or_raise(answer, b""))
        )
        return tuple(facts for facts in found if facts is not None)

    def _names(self, role: str) -> list[bytes]:
        """The names of the role's workers, at most WORKERS_OF_A_ROLE. The role's account can write many more."""
        names: dict[bytes, None] = {}
        cursor: Any = 0
        some: Any
        try:
            while len(names) < bounds.WORKERS_OF_A_ROLE:
                cursor, some = self._redis.sscan(keys.workers(role), cursor, count=bounds.WORKERS_OF_A_ROLE)
                names |= dict.fromkeys(some)
                if cursor == 0:
                    break
        except redis.ResponseError as error:
            _or_raise(error, None)
        return list(names)[: bounds.WORKERS_OF_A_ROLE]

    def _facts(self, role: str, name: str, document: bytes) -> WorkerFacts | None:
        """None if the document cannot be decoded, such as a newer worker's; other workers are unaffected."""
        try:
            return bounds.decode_facts(role, name, document)
        except (ValueError, RecursionError) as error:
            if (role, name) not in self._strangers and len(self._strangers) < bounds.WORKERS_OF_A_ROLE:
                self._strangers.add((role, name))
                extra = {"action": "bad-document", "role": role}
                words = "Worker %a is given no work: its facts cannot be decoded: %a"
                _log.warning(words, name, str(error)[:300], extra=extra)
            return None


def _or_raise(answer: Any, empty: Any) -> Any:
    """`empty` for a key that holds a value of another type. Raises the broker's other errors."""
    if isinstance(answer, Exception):
        if isinstance(answer, redis.ResponseError) and str(answer).startswith("WRONGTYPE"):
            return empty
        raise answer
    return answer


def _names(document: bytes) -> list[str]:
    try:
        return msgspec.json.decode(document, type=list[str])
    except (ValueError, RecursionError):
        return []
