-- The heart beats: the lock holds on, or is taken again where it ran out and nobody came; and what
-- is beside the stream does not expire under a run that waits.
-- KEYS  lock, checkpoint, the set of seen chats
-- ARGV  owner, milliseconds until the lock runs out, milliseconds to keep the checkpoint (0: for
--       ever), seconds to keep the set, the time, from which on the resume window counts
-- Gives 1, or 0 where the lock is lost.
local owner = redis.call('GET', KEYS[1])
local fence_owner = redis.call('HGET', KEYS[2], 'fence_owner')
if owner == false then
  local is_lost = redis.call('HEXISTS', KEYS[2], 'fence') == 0
  if fence_owner == ARGV[1] or is_lost then
    -- It ran out, or the server has lost its memory.
    owner = ARGV[1]
  end
end
if owner ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[3] ~= '0' then
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
if fence_owner == ARGV[1] and redis.call('HGET', KEYS[2], 'status') == 'running' then
  redis.call('HSET', KEYS[2], 'at', ARGV[5])
end
redis.call('EXPIRE', KEYS[3], ARGV[4])
return 1
