-- Takes the lock, or keeps it, and fences all earlier owners off.
-- KEYS  lock, checkpoint
-- ARGV  owner, milliseconds until the lock runs out, milliseconds to keep the checkpoint (0: for ever)
-- Gives the fence; or, where somebody else has the lock, that owner, how long it still holds, and
-- which run was the last to end.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return {owner, redis.call('PTTL', KEYS[1]), redis.call('HGET', KEYS[2], 'settled')}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local at = redis.call('HMGET', KEYS[2], 'fence', 'fence_owner')
if at[2] == ARGV[1] then
  -- A late copy of this very call must not fence its own sender off.
  return at[1]
end
-- The server's time in microseconds: a fence stays the highest also after the checkpoint with the
-- last one has expired. It has 16 digits, which a Lua number still holds exactly.
local now = redis.call('TIME')
local fence = now[1] * 1000000 + now[2]
local last = tonumber(at[1] or '0')
if fence <= last then
  fence = last + 1
end
fence = string.format('%.0f', fence)
redis.call('HSET', KEYS[2], 'fence', fence, 'fence_owner', ARGV[1])
if ARGV[3] ~= '0' then
  -- Also where the run ends before it has begun.
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return fence
