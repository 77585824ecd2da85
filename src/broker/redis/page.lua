-- Reads one page of a stream. The page is limited in bytes as well as in entries, because one entry
-- may hold many chats.
--
--   KEYS[1]  stream
--   ARGV[1]  start of the range, in the syntax of XRANGE
--   ARGV[2]  maximum number of entries
--   ARGV[3]  bytes in fields and values after which no further entry is added
--
-- Returns entries as XRANGE does.
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
