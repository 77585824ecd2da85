-- Heartbeat: extends the lock, or takes it again if it expired and no other run has taken it. It
-- also extends the keys beside the stream, so that they do not expire while a run waits.
--
--   KEYS[1]  lock
--   KEYS[2]  checkpoint
--   KEYS[3]  dedup set
--   ARGV[1]  owner
--   ARGV[2]  lock expiry in milliseconds
--   ARGV[3]  milliseconds to keep the checkpoint (0: no expiry)
--   ARGV[4]  seconds to keep the dedup set
--   ARGV[5]  current time, from which the resume window counts
--
-- Returns 1, or 0 if the lock is lost.
local owner = redis.call('GET', KEYS[1])
local fence_owner = redis.call('HGET', KEYS[2], 'fence_owner')
if owner == false then
  local is_lost = redis.call('HEXISTS', KEYS[2], 'fence') == 0
  if fence_owner == ARGV[1] or is_lost then
    -- The lock expired without a takeover, or the server has lost its data.
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
