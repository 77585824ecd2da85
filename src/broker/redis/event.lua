-- Appends the entry of an event, unless an event with the same id was appended before.
--
--   KEYS[1]  stream
--   KEYS[2]  key that remembers the event
--   ARGV[1]  milliseconds to remember the event
--   ARGV[2]  milliseconds to keep entries (0: no expiry)
--   ARGV[3] and up: fields and values
--
-- Returns 'published', or 'duplicate' if the event was appended before.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return 'duplicate'
end
-- In this order: an entry that the server refuses must not be remembered.
redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))
redis.call('SET', KEYS[2], '1', 'PX', ARGV[1])
if ARGV[2] ~= '0' then
  local now = redis.call('TIME')
  local oldest = now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[2]
  redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', oldest))
end
return 'published'
