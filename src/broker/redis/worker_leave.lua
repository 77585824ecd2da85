-- Makes all entries that a worker still has ready to be taken over, takes back the count of their last
-- delivery, and removes the worker from its group unless it has any: the group would forget them with it.
--
--   KEYS[1]  stream
--   ARGV[1]  group
--   ARGV[2]  worker
--   ARGV[3]  milliseconds after which entries are taken over
--
-- Returns the number of entries that remain in the worker's name.
local stream, group, worker = KEYS[1], ARGV[1], ARGV[2]
local PAGE = 1000
local from, left = '-', 0
repeat
  local pending = redis.pcall('XPENDING', stream, group, from, '+', PAGE, worker)
  if pending.err then
    if string.find(pending.err, 'NOGROUP', 1, true) then
      return 0
    end
    return pending
  end
  for _, entry in ipairs(pending) do
    local deliveries = math.max(0, entry[4] - 1)
    redis.call('XCLAIM', stream, group, worker, 0, entry[1], 'IDLE', ARGV[3], 'RETRYCOUNT', deliveries, 'JUSTID')
    from = '(' .. entry[1]
  end
until #pending < PAGE
-- Claiming drops entries that were deleted from the stream.
left = #redis.call('XPENDING', stream, group, '-', '+', 1, worker)
if left == 0 then
  redis.call('XGROUP', 'DELCONSUMER', stream, group, worker)
end
return left
