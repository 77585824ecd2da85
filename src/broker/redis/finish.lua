-- Records how a run ended: complete (with a marker if requested), rejected, or partial, to be
-- resumed.
--
--   KEYS[1]  stream
--   KEYS[2]  checkpoint
--   KEYS[3]  manifest
--   KEYS[4]  members, only if their membership is kept
--   KEYS[5]  note about the members, likewise
--   KEYS[6]  stream for removed chats, likewise
--   ARGV[1]  fencing token
--   ARGV[2]  run id
--   ARGV[3]  status: complete, rejected or partial
--   ARGV[4]  expected position
--   ARGV[5]  number of chats in the whole list
--   ARGV[6]  milliseconds to keep the keys beside the stream (0: no expiry)
--   ARGV[7]  current time
--   ARGV[8]  time that the list is current as of, in seconds since 1970; '' to keep no membership
--   ARGV[9]  token of the set of members
--   ARGV[10] count of the marker's fields and values
--   ARGV[11] and up: fields and values of the marker, then those of the manifest
--
-- Returns 'OK'; 'fence', 'run' or 'position' if another writer has taken over the stream; 'stream' if
-- the stream was deleted; or 'members' if the set of members is not the one that the run began with.
local at = redis.call('HMGET', KEYS[2], 'fence', 'run_id', 'position', 'first_id', 'last_id', 'chats')
if at[1] ~= ARGV[1] then
  return 'fence'
end
if at[2] ~= ARGV[2] then
  return 'run'
end
local is_complete = ARGV[3] == 'complete'
local is_over = is_complete or ARGV[3] == 'rejected'
if is_over then
  if at[3] ~= ARGV[4] then
    return 'position'
  end
  if at[4] and redis.call('EXISTS', KEYS[1]) == 0 then
    return 'stream'
  end
  if is_complete and ARGV[8] ~= '' and redis.call('HGET', KEYS[4], ':') ~= ARGV[9] then
    return 'members'
  end
  if is_complete then
    local marker = tonumber(ARGV[10])
    if marker > 0 and redis.call('HGET', KEYS[2], 'completed') ~= ARGV[2] then
      redis.call('HSET', KEYS[2], 'completed', ARGV[2])
      redis.call('XADD', KEYS[1], '*', unpack(ARGV, 11, 10 + marker))
    end
    redis.call('HSET', KEYS[2], 'last_complete', ARGV[5])
    if ARGV[8] ~= '' then
      -- The set contains a whole list, and chats can be compared with it.
      redis.call('HSET', KEYS[5], 'as_of', ARGV[8])
      redis.call('HDEL', KEYS[5], 'guarded')
      if redis.call('HGET', KEYS[5], 'building') == ARGV[9] then
        redis.call('HSET', KEYS[5], 'trusted', ARGV[9])
        redis.call('HDEL', KEYS[5], 'building')
      end
      if ARGV[6] ~= '0' then
        local now = redis.call('TIME')
        local oldest = now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[6]
        redis.call('XTRIM', KEYS[6], 'MINID', '~', string.format('%.0f', oldest))
      end
    end
  end
  redis.call('HSET', KEYS[2], 'status', ARGV[3], 'at', ARGV[7])
end
if not is_over then
  -- The resume window counts from this time.
  redis.call('HSET', KEYS[2], 'at', ARGV[7])
end
redis.call('HSET', KEYS[3], 'run_id', ARGV[2], 'status', ARGV[3], 'finished_at', ARGV[7],
  'first_id', at[4] or '', 'last_id', at[5] or '', 'chats', is_complete and ARGV[5] or at[6],
  unpack(ARGV, 11 + ARGV[10]))
if ARGV[6] ~= '0' then
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
  redis.call('PEXPIRE', KEYS[3], ARGV[6])
else
  redis.call('PERSIST', KEYS[2])
  redis.call('PERSIST', KEYS[3])
end
return 'OK'
