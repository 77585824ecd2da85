-- Gives the lock back, if it is still ours. A heartbeat that comes late does not take it again.
-- KEYS  lock, checkpoint
-- ARGV  owner
if redis.call('HGET', KEYS[2], 'fence_owner') == ARGV[1] then
  redis.call('HDEL', KEYS[2], 'fence_owner')
end
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
