-- Deletes the fields of one page of a hash that are older than a time, or counts them. The field ':'
-- (in a state of its own: '', where ':' and '::' are numbers) is the token of a whole set of members. It goes with the first member
-- that is deleted: who is new cannot be told by what is left.
--
--   KEYS[1]  hash: chat id -> record of a member, or time in seconds
--   ARGV[1]  cursor, '0' for the first page
--   ARGV[2]  approximate number of fields in a page
--   ARGV[3]  'record' or 'time'
--   ARGV[4]  time in seconds before which a field is old ('': all are)
--   ARGV[5]  '1' to delete
--
-- Returns {cursor of the next page, number of fields}; cursor '0' after the last page.
local is_deleted = ARGV[5] == '1'
-- Fields about all chats, beside those of chats.
local others = 0
for _, field in ipairs({':', '::', ':streams', ''}) do
  others = others + redis.call('HEXISTS', KEYS[1], field)
end
if ARGV[4] == '' then
  local found = redis.call('HLEN', KEYS[1]) - others
  if is_deleted then
    redis.call('UNLINK', KEYS[1])
  end
  return {'0', found}
end
local limit, old, has_member = tonumber(ARGV[4]), {}, false
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
for i = 1, #page[2], 2 do
  local at, state = page[2][i + 1], nil
  if ARGV[3] == 'record' then
    state, at = string.match(at, '^(%l)%l([%d.]+):')
  end
  at = tonumber(at)
  local is_chat = page[2][i] ~= '' and string.sub(page[2][i], 1, 1) ~= ':'
  if is_chat and at and at < limit then
    old[#old + 1] = page[2][i]
    has_member = has_member or (state and state ~= 'r')
  end
end
if is_deleted then
  -- A small hash comes as one page of any length, and unpack takes a limited number of values.
  for i = 1, #old, 1000 do
    redis.call('HDEL', KEYS[1], unpack(old, i, math.min(i + 999, #old)))
  end
  if has_member then
    redis.call('HDEL', KEYS[1], ':', '')
  end
end
return {page[1], #old}
