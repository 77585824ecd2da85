-- Adds chats to the set of those that are on the stream already, where the set is still that of the reading
-- that asks: a late copy of a call, or a worker that has lost its lock, must not fill another's.
-- KEYS  the set
-- ARGV  the token of the reading, seconds that the set lasts; then members
-- Gives 1, or 0 where the set is gone or another's.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then
  return 0
end
if #ARGV > 2 then
  redis.call('SADD', KEYS[1], unpack(ARGV, 3))
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
