-- Removes one page of the times of publication that are too old to be kept, if the last sweep was
-- long enough ago.
--
--   KEYS[1]  times of publication
--   KEYS[2]  checkpoint
--   ARGV[1]  cursor, '0' for the first page
--   ARGV[2]  approximate number of entries in a page
--   ARGV[3]  seconds to keep an entry
--   ARGV[4]  seconds from one sweep to the next
--
-- Returns the cursor of the next page, '0' after the last one.
local now = tonumber(redis.call('TIME')[1])
if ARGV[1] == '0' then
  local swept = redis.call('HGET', KEYS[2], 'swept')
  if swept and now - swept < tonumber(ARGV[4]) then
    return '0'
  end
  redis.call('HSET', KEYS[2], 'swept', now)
  if not swept then
    -- The first run: nothing is old.
    return '0'
  end
end
-- The labels of a queue share the times: the longest retention of their runs counts.
local kept = tonumber(redis.call('HGET', KEYS[1], ':') or ARGV[3])
if kept == 0 then
  return '0'
end
local oldest = now - math.max(kept, tonumber(ARGV[3]))
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local old = {}
for i = 1, #page[2], 2 do
  if string.sub(page[2][i], 1, 1) ~= ':' and tonumber(page[2][i + 1]) < oldest then
    old[#old + 1] = page[2][i]
  end
end
-- A small hash comes as one page of any length, and unpack takes a limited number of values.
for i = 1, #old, 1000 do
  redis.call('HDEL', KEYS[1], unpack(old, i, math.min(i + 999, #old)))
end
return page[1]
