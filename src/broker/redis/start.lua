-- Starts a run at position 0: a new run, or one whose list has changed or whose data was lost.
--
--   KEYS[1]  stream
--   KEYS[2]  checkpoint
--   KEYS[3]  manifest
--   ARGV[1]  fencing token
--   ARGV[2]  run id
--   ARGV[3]  label id
--   ARGV[4]  digest at position 0
--   ARGV[5]  milliseconds to keep the keys beside the stream (0: no expiry)
--   ARGV[6]  '1' to skip chats that are already on the stream
--   ARGV[7]  current time
--   ARGV[8]  number of partitions of the queue
--   ARGV[9]  owner
--   ARGV[10] token of this call
--   ARGV[11] and up: fields and values of the start marker, if one is requested
--
-- Returns a new fencing token, which rejects everything that was in flight before; or 'fence' if
-- the caller's token is not the newest.
local at = redis.call('HMGET', KEYS[2], 'fence', 'run_id', 'start', 'fence_owner')
if at[3] == ARGV[10] and at[4] == ARGV[9] then
  -- A delayed duplicate of this call gets the same token.
  return at[1]
end
if at[1] ~= ARGV[1] then
  return 'fence'
end
local fence = string.format('%.0f', at[1] + 1)
redis.call('HDEL', KEYS[2], 'suppressed')
redis.call('HSET', KEYS[2], 'run_id', ARGV[2], 'position', '0', 'digest', ARGV[4],
  'status', 'running', 'suppress', ARGV[6], 'at', ARGV[7], 'partitions', ARGV[8],
  'start', ARGV[10], 'fence', fence)
local is_new = at[2] ~= ARGV[2]
if is_new or redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[2], 'chats', '0')
  redis.call('HDEL', KEYS[2], 'first_id', 'last_id', 'read_from')
  if is_new and ARGV[6] == '1' then
    -- The checkpoint was lost, and entries of the run may be anywhere on the stream.
    redis.call('HSET', KEYS[2], 'read_from', '-')
  end
  if #ARGV > 10 then
    redis.call('XADD', KEYS[1], '*', unpack(ARGV, 11))
  end
end
if is_new then
  redis.call('HSET', KEYS[3], 'run_id', ARGV[2], 'label_id', ARGV[3], 'queue', KEYS[1],
    'status', 'running', 'started_at', ARGV[7])
end
if ARGV[5] ~= '0' then
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
else
  redis.call('PERSIST', KEYS[2])
  redis.call('PERSIST', KEYS[3])
end
return fence
