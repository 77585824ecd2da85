-- Applies an event to the membership of a chat, as src/state/record.rs does, and appends its entry if
-- that changes. An event with the id of an earlier one changes nothing.
--
--   KEYS[1]  stream
--   KEYS[2]  key that remembers the event
--   KEYS[3]  members
--   KEYS[4]  note about the members
--   KEYS[5]  stream for removed chats
--   KEYS[6]  times of publication
--   KEYS[7]  checkpoint
--   ARGV[1]  milliseconds to remember the event
--   ARGV[2]  milliseconds to keep entries and keys (0: no expiry)
--   ARGV[3]  chat id
--   ARGV[4]  'added' or 'deleted'
--   ARGV[5]  time of the event, in seconds since 1970 with three decimals
--   ARGV[6]  '1' to append deletions too
--   ARGV[7]  token for a new set of members
--   ARGV[8]  seconds since the last publication in which a chat is not appended again (0: no limit)
--   ARGV[9]  number of partitions of the queue
--   ARGV[10] and up: fields and values
--
-- Returns 'published'; 'recorded' for a deletion that is not appended; 'suppressed' for a chat that was
-- published recently; or 'unchanged', 'stale' or 'duplicate'.
local call = redis.call
if call('EXISTS', KEYS[2]) == 1 then
  return 'duplicate'
end
local id, is_added, time = ARGV[3], ARGV[4] == 'added', tonumber(ARGV[5])
local found = call('HMGET', KEYS[3], id, ':')
if not found[2] then
  -- Only a whole list makes a set that chats can be compared with.
  call('UNLINK', KEYS[3])
  found[1] = false
  call('HSET', KEYS[3], ':', ARGV[7])
  call('HSET', KEYS[4], 'building', ARGV[7], 'members', '0', 'removed', '0')
end

-- Returns what the event does, and notes in `moved` how the counts change: 'joined', 'left', 'left_unannounced' for a new chat that left, 'unchanged' or
-- 'stale'; and the record then.
local moved = {}
local function apply(record)
  local second = string.match(ARGV[5], '^%d+')
  local list_time = tonumber(call('HGET', KEYS[4], 'as_of') or nil)
  if not record then
    if list_time and time < list_time then
      return 'stale'
    end
    local state = is_added and 'me' or 're'
    moved[is_added and 'members' or 'removed'] = 1
    return is_added and 'joined' or 'unchanged', state .. ARGV[5] .. ':' .. second .. ':0:0'
  end
  local state, source, at, since, rest =
    string.match(record, '^(%a)(%a)([%d.]+):(%d+):(%d+:%d+)$')
  at = tonumber(at)
  if state == 'r' and list_time and at < list_time then
    -- The last list did not contain it either.
    at, source = list_time, 'l'
  end
  if time < at or (time == at and source == 'e' and is_added) then
    return 'stale'
  end
  local change = 'unchanged'
  if state == 'r' and is_added then
    change, state, since = 'joined', 'm', second
    moved.members, moved.removed = 1, -1
  elseif state ~= 'r' and not is_added then
    -- Consumers were not told of a chat that is still new.
    change, state = state == 'n' and 'left_unannounced' or 'left', 'r'
    moved.members, moved.removed = -1, 1
  end
  return change, state .. 'e' .. ARGV[5] .. ':' .. since .. ':' .. rest
end

local change, record = apply(found[1])
local stream
local second = call('TIME')[1]
local keeps_times = ARGV[8] ~= '0'
if keeps_times then
  call('HSET', KEYS[7], 'published_over', ARGV[9])
end
local is_suppressed = false
if change == 'joined' then
  local published = keeps_times and call('HGET', KEYS[6], id)
  is_suppressed = published and published + ARGV[8] > tonumber(second)
  stream = not is_suppressed and KEYS[1] or nil
elseif change == 'left' and ARGV[6] == '1' then
  stream = KEYS[5]
end
-- In this order: an entry that the server refuses must not be remembered, nor counted.
if stream then
  call('XADD', stream, '*', unpack(ARGV, 10))
end
if record then
  call('HSET', KEYS[3], id, record)
end
for name, difference in pairs(moved) do
  call('HINCRBY', KEYS[4], name, difference)
end
if change == 'joined' or change == 'left' or change == 'left_unannounced' then
  -- A run that is under way counts its members anew.
  call('HINCRBY', KEYS[4], 'events', 1)
end
local streams = call('HGET', KEYS[7], 'published_over')
if stream == KEYS[1] and streams then
  -- The labels of a queue share the times: they are kept as long as the longest of their runs keeps
  -- them, which the field ':' tells in seconds (0: forever).
  local left = call('PTTL', KEYS[6])
  local kept, keep = tonumber(call('HGET', KEYS[6], ':') or nil), math.ceil(ARGV[2] / 1000)
  if not kept or (kept ~= 0 and (keep == 0 or keep > kept)) then
    kept = keep
  end
  call('HSET', KEYS[6], ':', kept, ':streams', streams, id, second)
  if kept == 0 then
    call('PERSIST', KEYS[6])
  elseif left < tonumber(ARGV[2]) then
    call('PEXPIRE', KEYS[6], ARGV[2])
  end
end
call('HSET', KEYS[7], 'tracked', '1')
call('SET', KEYS[2], '1', 'PX', ARGV[1])
if ARGV[2] ~= '0' then
  for _, key in ipairs({KEYS[3], KEYS[7]}) do
    call('PEXPIRE', key, ARGV[2])
  end
  if stream then
    local now = call('TIME')
    local oldest = now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[2]
    call('XTRIM', stream, 'MINID', '~', string.format('%.0f', oldest))
  end
else
  for _, key in ipairs({KEYS[3], KEYS[7]}) do
    call('PERSIST', key)
  end
end
if stream then
  return 'published'
end
if is_suppressed then
  return 'suppressed'
end
if change == 'left' or change == 'left_unannounced' then
  return 'recorded'
end
return change
