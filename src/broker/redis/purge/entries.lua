-- Deletes the entries of one page of a stream, or counts them. The page is limited in bytes as well
-- as in entries, because one entry may hold many chats.
--
--   KEYS[1]  stream
--   ARGV[1]  start of the range, in the syntax of XRANGE
--   ARGV[2]  end of the range
--   ARGV[3]  maximum number of entries
--   ARGV[4]  bytes in fields and values after which no further entry is added
--   ARGV[5]  '1' to delete
--   ARGV[6]  label whose entries are deleted (missing: all entries)
--
-- Returns {start of the next page or '', number of entries}.
local from, entries, found, bytes = ARGV[1], 0, 0, 0
local most_entries, enough_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
while entries < most_entries and bytes < enough_bytes do
  local entry = redis.call('XRANGE', KEYS[1], from, ARGV[2], 'COUNT', 1)[1]
  if not entry then
    return {'', found}
  end
  for _, text in ipairs(entry[2]) do
    bytes = bytes + #text
  end
  if not ARGV[6] or label_of(entry[2]) == ARGV[6] then
    found = found + 1
    if ARGV[5] == '1' then
      redis.call('XDEL', KEYS[1], entry[1])
    end
  end
  entries = entries + 1
  from = '(' .. entry[1]
end
return {from, found}
