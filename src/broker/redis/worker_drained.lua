-- Tells whether a group has read a whole stream and acknowledged all of it.
--
--   KEYS[1]  stream
--   ARGV[1]  group
--
-- Returns 1 or 0.
local stream, group = KEYS[1], ARGV[1]
if redis.call('EXISTS', stream) == 0 then
  return 1
end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local found = {}
  for i = 1, #info, 2 do
    found[info[i]] = info[i + 1]
  end
  if found.name == group then
    -- The lag that newer servers report is unknown after some deletions.
    local unread = redis.call('XRANGE', stream, '(' .. found['last-delivered-id'], '+', 'COUNT', 1)
    return (#unread == 0 and found.pending == 0) and 1 or 0
  end
end
return redis.call('XLEN', stream) == 0 and 1 or 0
