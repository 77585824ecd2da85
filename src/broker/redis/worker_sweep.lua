-- Acknowledges the entries in a worker's name that were deleted from the stream, for servers before
-- version 7, which go on delivering them without contents.
--
--   KEYS[1]  stream
--   ARGV[1]  group
--   ARGV[2]  worker
--
-- Returns the number of entries that were acknowledged.
local stream, group, worker = KEYS[1], ARGV[1], ARGV[2]
local PAGE = 1000
local from, swept = '-', 0
repeat
  local pending = redis.call('XPENDING', stream, group, from, '+', PAGE, worker)
  for _, entry in ipairs(pending) do
    local id = entry[1]
    if #redis.call('XRANGE', stream, id, id) == 0 then
      swept = swept + redis.call('XACK', stream, group, id)
    end
    from = '(' .. id
  end
until #pending < PAGE
return swept
