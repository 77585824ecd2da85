-- Removes the workers of a group that have no entries and have been silent for long.
--
--   KEYS[1]  stream
--   ARGV[1]  group
--   ARGV[2]  prefix of the names of workers
--   ARGV[3]  milliseconds of silence
--
-- Returns the number of workers that were removed.
local stream, group, prefix = KEYS[1], ARGV[1], ARGV[2]
local removed = 0
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
  local found = {}
  for i = 1, #info, 2 do
    found[info[i]] = info[i + 1]
  end
  local is_worker = string.sub(found.name, 1, #prefix) == prefix
  if is_worker and found.pending == 0 and found.idle > tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', stream, group, found.name)
    removed = removed + 1
  end
end
return removed
