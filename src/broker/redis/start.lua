-- Starts a run at position 0: a new run, or one whose list has changed or whose data was lost.
--
--   KEYS[1]  stream
--   KEYS[2]  checkpoint
--   KEYS[3]  manifest
--   KEYS[4]  members, only if their membership is kept
--   KEYS[5]  note about the members, likewise
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
--   ARGV[11] members to publish: 'all', 'new' or 'none'; '' to keep no membership
--   ARGV[12] token for a new set of members
--   ARGV[13] '1' if times of publication are kept
--   ARGV[14] name of the selection of chats, by which a run is resumed
--   ARGV[15] token of the set that this process has worked on; '' if there is none yet
--   ARGV[16] and up: fields and values of the start marker, if one is requested
--
-- Returns a new fencing token, which rejects everything that was in flight before; 'fence' if the
-- caller's token is not the newest; or 'members' if only new members are to be published, and it is
-- not known who is new.
local at = redis.call('HMGET', KEYS[2], 'fence', 'run_id', 'start', 'fence_owner')
if at[3] == ARGV[10] and at[4] == ARGV[9] then
  -- A delayed duplicate of this call gets the same token.
  return at[1]
end
if at[1] ~= ARGV[1] then
  return 'fence'
end
local publish, set, found, is_first_use = ARGV[11], nil, nil, nil
if publish ~= '' then
  set = redis.call('HMGET', KEYS[5], 'trusted', 'building')
  found = redis.call('HGET', KEYS[4], ':')
  is_first_use = not set[1] and not set[2] and not found
  local is_lost = ARGV[15] ~= '' and found ~= ARGV[15]
  local is_comparable = is_first_use or (found and found == set[1])
  if publish == 'new' and (is_lost or not is_comparable) then
    return 'members'
  end
end
local fence = string.format('%.0f', at[1] + 1)
redis.call('HDEL', KEYS[2], 'suppressed', 'known')
redis.call('HSET', KEYS[2], 'run_id', ARGV[2], 'position', '0', 'digest', ARGV[4],
  'status', 'running', 'suppress', ARGV[6], 'at', ARGV[7], 'partitions', ARGV[8],
  'start', ARGV[10], 'fence', fence, 'selection', ARGV[14])
local is_new = at[2] ~= ARGV[2]
local has_stream = redis.call('EXISTS', KEYS[1]) == 1
if is_new then
  redis.call('HSET', KEYS[2], 'began', redis.call('TIME')[1])
  redis.call('HDEL', KEYS[2], 'lost')
elseif not has_stream then
  -- What the run has published up to now was lost.
  redis.call('HSET', KEYS[2], 'lost', redis.call('TIME')[1])
end
if is_new or not has_stream then
  redis.call('HSET', KEYS[2], 'chats', '0')
  redis.call('HDEL', KEYS[2], 'first_id', 'last_id', 'read_from')
  if is_new and ARGV[6] == '1' then
    -- The checkpoint was lost, and entries of the run may be anywhere on the stream.
    redis.call('HSET', KEYS[2], 'read_from', '-')
  end
  if #ARGV > 15 then
    redis.call('XADD', KEYS[1], '*', unpack(ARGV, 16))
  end
end
if publish ~= '' then
  local pass = redis.call('HINCRBY', KEYS[5], 'pass', 1)
  redis.call('HSET', KEYS[5], 'partitions', ARGV[8])
  redis.call('HSET', KEYS[2], 'pass', pass, 'confirmed', '0')
  if not (found and (found == set[1] or found == set[2])) then
    redis.call('UNLINK', KEYS[4])
    redis.call('HSET', KEYS[4], ':', ARGV[12])
    redis.call('HSET', KEYS[5], 'members', '0', 'removed', '0')
    -- A set that a list has to fill first is not the one that chats are compared with.
    local is_trusted = is_first_use and publish ~= 'none'
    redis.call('HSET', KEYS[5], is_trusted and 'trusted' or 'building', ARGV[12])
  end
  -- The note knows the run even if the checkpoint was lost.
  local note = redis.call('HMGET', KEYS[5], 'members', 'events', 'run_id', 'first_pass',
    'published_from', 'guarded')
  local is_known = note[3] == ARGV[2]
  local first_pass = is_known and note[4] or pass
  local published_from = is_known and has_stream and note[5] or pass
  redis.call('HSET', KEYS[5], 'run_id', ARGV[2], 'first_pass', first_pass,
    'published_from', published_from)
  redis.call('HSET', KEYS[2], 'first_pass', first_pass, 'published_from', published_from,
    'members_before', math.min(note[1], note[6] or note[1]), 'events_before', note[2] or '0')
  if is_new then
    redis.call('HSET', KEYS[2], 'removed', '0')
  end
  if ARGV[5] ~= '0' then
    redis.call('PEXPIRE', KEYS[4], ARGV[5])
  else
    redis.call('PERSIST', KEYS[4])
  end
end
if ARGV[13] == '1' then
  redis.call('HSET', KEYS[2], 'published_over', ARGV[8])
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
