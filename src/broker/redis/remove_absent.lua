-- Counts or removes the members in one page of the set that a whole list does not contain, and
-- deletes records of removals that are old.
--
--   KEYS[1]  checkpoint
--   KEYS[2]  members
--   KEYS[3]  note about the members
--   KEYS[4]  stream for removed chats
--   ARGV[1]  fencing token
--   ARGV[2]  run id
--   ARGV[3]  cursor, '0' for the first page
--   ARGV[4]  approximate number of records in a page
--   ARGV[5]  time that the list is current as of, in seconds since 1970
--   ARGV[6]  pass
--   ARGV[7]  'count', 'remove', or 'publish' to also append what is removed
--   ARGV[8]  token of the set of members
--   ARGV[9]  seconds for which a removal is remembered
--   ARGV[10] and up: fields and values of the entry of a removed chat. A value is followed by its
--            kind: 'text'; 'id' to append the chat id to it; or 'json' for parts of a JSON text,
--            separated by newlines, between which the chat id belongs as the content of a string
--
-- Returns {cursor of the next page, number of absent members}; or 'fence', 'run' or 'members' for the
-- check that failed.
local call = redis.call
local at = call('HMGET', KEYS[1], 'fence', 'run_id')
if at[1] ~= ARGV[1] then
  return 'fence'
end
if at[2] ~= ARGV[2] then
  return 'run'
end
if call('HGET', KEYS[2], ':') ~= ARGV[8] then
  return 'members'
end
local as_of, pass = ARGV[5], ARGV[6]
local list_time, remembered = tonumber(as_of), tonumber(ARGV[9])

-- Returns the fields and values of the entry of a removed chat.
local function entry(id)
  local fields = {}
  for i = 10, #ARGV, 3 do
    local value = ARGV[i + 1]
    if ARGV[i + 2] == 'id' then
      value = value .. id
    elseif ARGV[i + 2] == 'json' then
      local escaped = string.sub(cjson.encode(id), 2, -2)
      local parts = {}
      for part in string.gmatch(value, '[^\n]+') do
        parts[#parts + 1] = part
      end
      value = table.concat(parts, escaped)
    end
    fields[#fields + 1] = ARGV[i]
    fields[#fields + 1] = value
  end
  return fields
end

local page = call('HSCAN', KEYS[2], ARGV[3], 'COUNT', ARGV[4])
local absent, changes, old = 0, {}, {}
for i = 1, #page[2], 2 do
  local id, record = page[2][i], page[2][i + 1]
  local state, source, time, rest, seen, published =
    string.match(record, '^(%a)(%a)([%d.]+):(%d+):(%d+):(%d+)$')
  if state == 'r' and tonumber(time) + remembered < list_time then
    old[#old + 1] = id
  elseif state and state ~= 'r' and seen ~= pass
    and (source == 'l' or tonumber(time) < list_time) then
    absent = absent + 1
    if ARGV[7] ~= 'count' then
      changes[#changes + 1] = id
      changes[#changes + 1] = 'rl' .. as_of .. ':' .. rest .. ':' .. seen .. ':' .. published
      -- Consumers were not told of a chat that is still new.
      if ARGV[7] == 'publish' and state == 'm' then
        call('XADD', KEYS[4], '*', unpack(entry(id)))
      end
    end
  end
end
-- A small hash comes as one page of any length, and unpack takes a limited number of values.
for i = 1, #changes, 1000 do
  call('HSET', KEYS[2], unpack(changes, i, math.min(i + 999, #changes)))
end
if #changes > 0 then
  call('HINCRBY', KEYS[3], 'members', -absent)
  call('HINCRBY', KEYS[3], 'removed', absent)
  call('HINCRBY', KEYS[1], 'removed', absent)
end
if ARGV[7] ~= 'count' and #old > 0 then
  for i = 1, #old, 1000 do
    call('HDEL', KEYS[2], unpack(old, i, math.min(i + 999, #old)))
  end
  call('HINCRBY', KEYS[3], 'removed', -#old)
end
return {page[1], absent}
