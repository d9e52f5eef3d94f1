"""The Lua scripts of leases, locks and documents. The modules that run them choose keys and arguments.

A script of an attacker may run without end, which stops the broker, or fill its memory for good. So only the
scheduler's account may load scripts. It loads all of these, and loads them again when the broker has lost them; a
process that starts earlier waits for it.
"""

import time
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError

from farm.broker import keys

_PATIENCE_S = 5.0
_LOOK_EVERY_S = 0.1

# A claim whose answer got lost is repeated under the same name, and gets the same answer.
# An offer without work belongs to an attempt whose turn has not come. Messages for it may be forged, and a waiting
# worker occupies a slot, so only a few may wait, and for a moment. A dropped message leaves a mark, and the scheduler
# then sends another message together with the offer. HINCRBY needs no right to write work into an offer.
# PERSIST changes nothing, but a script whose first write needs no memory may go on at the memory limit.
CLAIM = """
if redis.call('EXISTS', KEYS[3]) == 1 then return 'gone' end
local lease = redis.call('HMGET', KEYS[2], 'claim', 'holder', 'work')
if lease[1] then
  if lease[1] ~= ARGV[4] or lease[2] ~= ARGV[1] then return 'gone' end
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  return lease[3]
end
if redis.call('EXISTS', KEYS[2]) == 1 then return 'gone' end
local offer = redis.call('HMGET', KEYS[1], 'work', 'waits', 'missed')
if not offer[1] then
  if not offer[2] then return 'unexpected' end
  redis.call('PERSIST', KEYS[1])
  if ARGV[6] == '1' and tonumber(offer[2]) < tonumber(ARGV[7]) then
    redis.call('HINCRBY', KEYS[1], 'waits', 1)
    return 'wait'
  end
  if not offer[3] then redis.call('HINCRBY', KEYS[1], 'missed', 1) end
  return 'early'
end
local why = redis.call('HGET', KEYS[4], ARGV[5])
if why then return 'held ' .. why end
redis.call('PERSIST', KEYS[1])
redis.call('HSET', KEYS[2], 'holder', ARGV[1], 'worker', ARGV[2], 'claim', ARGV[4], 'work', offer[1])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('DEL', KEYS[1])
return offer[1]
"""
TOUCH = """
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  redis.call('EXPIRE', KEYS[4], ARGV[3])
  return 'held'
end
if holder or redis.call('EXISTS', KEYS[2]) == 1 or redis.call('EXISTS', KEYS[3]) == 1 then return 'gone' end
return 'missing'
"""
# The script begins with DEL, so that it runs at the memory limit too: a cancel reaches running attempts. It takes four
# keys for each attempt.
CLOSE = """
for i = 1, #KEYS, 4 do
  redis.call('DEL', KEYS[i], KEYS[i + 1])
  redis.call('SET', KEYS[i + 2], '1', 'EX', ARGV[1])
  redis.call('LPUSH', KEYS[i + 3], '1')
  redis.call('EXPIRE', KEYS[i + 3], ARGV[2])
end
"""
# Offers the works that are the arguments after the first, each with two keys, and wakes the workers that wait for them;
# answers which of their messages were dropped before. Commands for each attempt would cost the scheduler several times
# as much, here and below. A key of another type stops no other work; the answer is then the first error.
OFFER = """
local missed, failed = {}, nil
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then failed = failed or answer end
  return answer
end
for i = 2, #ARGV do
  local offer, wake = KEYS[2 * i - 3], KEYS[2 * i - 2]
  try('HSET', offer, 'work', ARGV[i])
  missed[i - 1] = try('HEXISTS', offer, 'missed')
  try('LPUSH', wake, '1')
  try('EXPIRE', wake, ARGV[1])
end
return failed or missed
"""
EXPECT = "for _, key in ipairs(KEYS) do redis.call('HSETNX', key, 'waits', 0) end"
# The arguments are the channel, then the messages.
PUBLISH = "for i = 2, #ARGV do redis.call('PUBLISH', ARGV[1], ARGV[i]) end"
RESTORE = """
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('EXISTS', KEYS[2]) == 1 then return end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'worker', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('DEL', KEYS[3])
"""
SEND = """
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('LPUSH', KEYS[1], ARGV[1])
if redis.call('LLEN', KEYS[2]) == 0 then redis.call('LPUSH', KEYS[2], '1') end
return 1
"""
UNLOCK = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end"
RENEW_LOCK = """
if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('expire', KEYS[1], ARGV[2]) else return 0 end
"""
# A lock without an end, or with an end far away, was not made by this script.
LOCK = """
local left = redis.call('ttl', KEYS[1])
if left == -1 or left > tonumber(ARGV[2]) then redis.call('del', KEYS[1]) end
return redis.call('set', KEYS[1], ARGV[1], 'nx', 'ex', ARGV[2]) and 1 or 0
"""
#: The scripts that are run by accounts which may not load them.
SHARED = (CLAIM, TOUCH, SEND, UNLOCK, RENEW_LOCK, LOCK)
# Names may be as long as Redis takes, so it examines few at a time, and deletes names that are too long at once: those
# of the farm, and of Celery's lists of one process.
SCAN = """
local cursor, names, left = ARGV[1], {}, tonumber(ARGV[2])
repeat
  local answer = redis.call('SCAN', cursor, 'COUNT', 10)
  cursor = answer[1]
  for _, name in ipairs(answer[2]) do
    if #name <= tonumber(ARGV[3]) then names[#names + 1] = name
    elseif string.sub(name, 1, #ARGV[4]) == ARGV[4] or string.find(name, ARGV[5], -#ARGV[5] - 3, true) then
      redis.call('UNLINK', name)
    end
  end
  left = left - 10
until cursor == '0' or left <= 0
return {cursor, names}
"""
# An account that may write a lease can make its fields as long as it likes.
HOLDERS = """
local found = {}
for i, key in ipairs(KEYS) do
  local worker, digest = redis.call('HSTRLEN', key, 'worker'), redis.call('HSTRLEN', key, 'holder')
  if math.max(worker, digest) > tonumber(ARGV[1]) then found[i] = {false, false}
  else found[i] = redis.call('HMGET', key, 'worker', 'holder') end
end
return found
"""


def of_scheduler(text: str) -> str:
    """The script with a first command that the broker allows to the scheduler's account alone.

    Every account may run every script that is loaded, with keys of its own. One that goes through a list could keep the
    broker busy for as long as a list can be, which is longer than a lease lasts.
    """
    return f"redis.call('EXISTS', '{keys.SCHEDULER}')\n{text}"


class ScriptMissing(redis.ConnectionError):
    """No scheduler has loaded the farm's scripts yet. The condition passes, as an outage does."""


class Script:
    """A script of this module. A client with an account never loads it, since Redis would deny that."""

    def __init__(self, client: redis.Redis, text: str) -> None:
        self._redis = client
        self._script = client.register_script(text)
        self._may_load = not client.connection_pool.connection_kwargs.get("username")

    def __call__(self, *, keys: Sequence[str], args: Sequence[str | int | bytes]) -> Any:
        """Raises ScriptMissing when no scheduler loads it within five seconds, and other redis.RedisError."""
        if self._may_load:
            return self._script(keys=keys, args=args)
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._redis.evalsha(self._script.sha, len(keys), *keys, *args)
            except NoScriptError as error:
                if time.monotonic() > deadline:
                    raise ScriptMissing("no scheduler has loaded the farm's scripts into the broker") from error
            time.sleep(_LOOK_EVERY_S)


class PipedScript:
    """A script of the scheduler, for its pipelines. redis-py asks the broker about the scripts of a pipeline
    in a round trip before it; this one loads them in the pipeline, which changes nothing for a script that is there.
    """

    def __init__(self, client: redis.Redis, text: str) -> None:
        self._text = of_scheduler(text)
        self._sha = client.register_script(self._text).sha

    def load(self, pipe: Any) -> None:
        """Load the script, with one answer, its digest. Comes before `run` in the same pipeline."""
        pipe.script_load(self._text)

    def run(self, pipe: Any, *, keys: Sequence[str] = (), args: Sequence[str | int | bytes] = ()) -> None:
        """Run the script, with one answer."""
        pipe.evalsha(self._sha, len(keys), *keys, *args)


class ScriptLoader:
    """Loads the scripts, for the scheduler. Asks the broker each time, which may lose its scripts at any time."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._names = [client.register_script(text).sha for text in SHARED]

    def load(self) -> None:
        """Load all scripts that the broker lacks. Raises redis.RedisError."""
        if not all(self._redis.script_exists(*self._names)):
            for text in SHARED:
                self._redis.script_load(text)
