-- Takes or keeps the lock, and issues a fencing token that invalidates those of all earlier owners.
--
--   KEYS[1]  lock
--   KEYS[2]  checkpoint
--   ARGV[1]  owner
--   ARGV[2]  lock expiry in milliseconds
--   ARGV[3]  milliseconds to keep the checkpoint (0: no expiry)
--
-- Returns the fencing token. If another owner holds the lock, returns {owner, milliseconds until
-- the lock expires, id of the last settled run}.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then
  return {owner, redis.call('PTTL', KEYS[1]), redis.call('HGET', KEYS[2], 'settled')}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local at = redis.call('HMGET', KEYS[2], 'fence', 'fence_owner')
if at[2] == ARGV[1] then
  -- A delayed duplicate of this call keeps the token: a new one would fence off its own sender.
  return at[1]
end
-- The token is the server time in microseconds, so that it stays the highest even after the
-- checkpoint that held the last token has expired. Its 16 digits fit a Lua number exactly.
local now = redis.call('TIME')
local fence = now[1] * 1000000 + now[2]
local last = tonumber(at[1] or '0')
if fence <= last then
  fence = last + 1
end
fence = string.format('%.0f', fence)
redis.call('HSET', KEYS[2], 'fence', fence, 'fence_owner', ARGV[1])
if ARGV[3] ~= '0' then
  -- Set here too, in case the run ends before it starts.
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return fence
