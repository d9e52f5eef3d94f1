"""What Redis does with a lease in one step, in Lua. The keys and arguments are farm.leases's."""

# A claim whose answer got lost is repeated under the same name, and is answered as before.
# An offer without work is that of an attempt whose turn is still to come. Messages for it may be forged, and whoever
# waits occupies a slot, so only so many may wait.
# PERSIST changes nothing; a script whose first write needs no memory may go on at the memory limit, though.
CLAIM = """
if redis.call('EXISTS', KEYS[3]) == 1 then return 'gone' end
local lease = redis.call('HMGET', KEYS[2], 'claim', 'holder', 'work')
if lease[1] then
  if lease[1] ~= ARGV[4] or lease[2] ~= ARGV[1] then return 'gone' end
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  return lease[3]
end
if redis.call('EXISTS', KEYS[2]) == 1 then return 'gone' end
local offer = redis.call('HMGET', KEYS[1], 'work', 'waits')
if not offer[1] then
  if not offer[2] then return 'unexpected' end
  if ARGV[6] == '1' then
    if tonumber(offer[2]) >= tonumber(ARGV[7]) then return 'unexpected' end
    redis.call('PERSIST', KEYS[1])
    redis.call('HINCRBY', KEYS[1], 'waits', 1)
  end
  return 'wait'
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
# In a script that begins with DEL, so that at the memory limit it is done all the same: a cancel reaches what runs.
CLOSE = """
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SET', KEYS[3], '1', 'EX', ARGV[1])
redis.call('LPUSH', KEYS[4], '1')
redis.call('EXPIRE', KEYS[4], ARGV[2])
"""
RESTORE = """
if redis.call('EXISTS', KEYS[1]) == 1 or redis.call('EXISTS', KEYS[2]) == 1 then return end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'worker', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('DEL', KEYS[3])
"""
