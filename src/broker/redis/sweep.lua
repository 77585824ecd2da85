-- Removes one page of the times of publication that are too old to be kept.
--
--   KEYS[1]  times of publication
--   ARGV[1]  cursor, '0' for the first page
--   ARGV[2]  approximate number of entries in a page
--   ARGV[3]  seconds to keep an entry
--
-- Returns the cursor of the next page, '0' after the last one.
local oldest = tonumber(redis.call('TIME')[1]) - tonumber(ARGV[3])
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local old = {}
for i = 1, #page[2], 2 do
  if tonumber(page[2][i + 1]) < oldest then
    old[#old + 1] = page[2][i]
  end
end
-- A small hash comes as one page of any length, and unpack takes a limited number of values.
for i = 1, #old, 1000 do
  redis.call('HDEL', KEYS[1], unpack(old, i, math.min(i + 999, #old)))
end
return page[1]
