-- Deletes the fields of one page of a hash that are older than a time, or counts them. The field ':'
-- (in a state of its own: '') is the token of a whole set of members. It goes with the last of them, so that the set does not
-- look like that of a label without members; the token of a set that had none stays.
--
--   KEYS[1]  hash: chat id -> record of a member, or time in seconds
--   ARGV[1]  cursor, '0' for the first page
--   ARGV[2]  approximate number of fields in a page
--   ARGV[3]  'record' or 'time'
--   ARGV[4]  time in seconds before which a field is old ('': all are)
--   ARGV[5]  '1' to delete
--   ARGV[6]  number of fields that were deleted with earlier pages
--
-- Returns {cursor of the next page, number of fields}; cursor '0' after the last page.
local is_deleted = ARGV[5] == '1'
local token = redis.call('HEXISTS', KEYS[1], ':') + redis.call('HEXISTS', KEYS[1], '')
if ARGV[4] == '' then
  local found = redis.call('HLEN', KEYS[1]) - token
  if is_deleted then
    redis.call('UNLINK', KEYS[1])
  end
  return {'0', found}
end
local limit, old = tonumber(ARGV[4]), {}
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
for i = 1, #page[2], 2 do
  local at = page[2][i + 1]
  if ARGV[3] == 'record' then
    at = string.match(at, '^%l%l([%d.]+):')
  end
  at = tonumber(at)
  if page[2][i] ~= ':' and page[2][i] ~= '' and at and at < limit then
    old[#old + 1] = page[2][i]
  end
end
if is_deleted then
  -- A small hash comes as one page of any length, and unpack takes a limited number of values.
  for i = 1, #old, 1000 do
    redis.call('HDEL', KEYS[1], unpack(old, i, math.min(i + 999, #old)))
  end
  local has_deleted = #old > 0 or ARGV[6] ~= '0'
  if page[1] == '0' and has_deleted and redis.call('HLEN', KEYS[1]) == token then
    redis.call('UNLINK', KEYS[1])
  end
end
return {page[1], #old}
