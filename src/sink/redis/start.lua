-- A run begins at a position; a new one, or one whose list has changed.
-- KEYS  stream, checkpoint, manifest
-- ARGV  fence, run id, label id, digest at position 0, milliseconds to keep what is beside the
--       stream (0: for ever), whether chats on the stream are to be passed over ('1'), the time,
--       over how many streams the queue is spread, the owner, a token of this call, and, where a
--       marker is to be put on the stream, its fields and values
-- Gives a new fence, which keeps out what is still under way from before; or 'fence'.
local at = redis.call('HMGET', KEYS[2], 'fence', 'run_id', 'start', 'fence_owner')
if at[3] == ARGV[10] and at[4] == ARGV[9] then
  -- A late copy of this very call.
  return at[1]
end
if at[1] ~= ARGV[1] then
  return 'fence'
end
local fence = string.format('%.0f', at[1] + 1)
redis.call('HSET', KEYS[2], 'run_id', ARGV[2], 'position', '0', 'digest', ARGV[4],
  'status', 'running', 'suppress', ARGV[6], 'at', ARGV[7], 'partitions', ARGV[8],
  'start', ARGV[10], 'fence', fence)
local is_new = at[2] ~= ARGV[2]
if is_new or redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[2], 'chats', '0')
  redis.call('HDEL', KEYS[2], 'first_id', 'last_id')
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
