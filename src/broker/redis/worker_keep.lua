-- Tells that entries are still in the hands of a worker, so that they are not taken over. Leaves alone
-- what another worker has, and does not count as a delivery.
--
--   KEYS[1]  stream
--   ARGV[1]  group
--   ARGV[2]  worker
--   ARGV[3] and up: ids
--
-- Returns the number of entries that the worker still has.
local stream, group, worker = KEYS[1], ARGV[1], ARGV[2]
local kept = 0
for i = 3, #ARGV do
  local id = ARGV[i]
  if #redis.call('XPENDING', stream, group, id, id, 1, worker) > 0 then
    redis.call('XCLAIM', stream, group, worker, 0, id, 'JUSTID')
    kept = kept + 1
  end
end
return kept
