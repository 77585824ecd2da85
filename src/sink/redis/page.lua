-- Reads a part of a stream that is small whatever its entries hold: somebody may have put many chats
-- into one.
-- KEYS  stream
-- ARGV  where it begins, as XRANGE has it; entries, and bytes in their fields, after which it ends
-- Gives entries, as XRANGE does.
local page, bytes, from = {}, 0, ARGV[1]
local most_entries, enough_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])
while #page < most_entries and bytes < enough_bytes do
  local entry = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', 1)[1]
  if not entry then
    break
  end
  page[#page + 1] = entry
  for _, text in ipairs(entry[2]) do
    bytes = bytes + #text
  end
  from = '(' .. entry[1]
end
return page
