-- The heart beats: the lock holds on, or is taken again where it ran out and nobody came.
-- KEYS  lock, checkpoint
-- ARGV  owner, milliseconds until the lock runs out, fence
-- Gives 1, or 0 where the lock is lost.
local owner = redis.call('GET', KEYS[1])
local fence = tonumber(redis.call('HGET', KEYS[2], 'fence') or '0')
if owner == false and fence <= tonumber(ARGV[3]) then
  -- Nobody came: it ran out, or the server has lost its memory. A newer fence of our own is fine.
  owner = ARGV[1]
end
if owner ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
