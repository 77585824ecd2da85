-- Gives the lock back, if it is still ours. A heartbeat that comes late does not take it again.
-- KEYS  lock, checkpoint
-- ARGV  owner, whether it knows that its run has come to its end ('1')
if redis.call('HGET', KEYS[2], 'fence_owner') == ARGV[1] then
  redis.call('HDEL', KEYS[2], 'fence_owner')
  if ARGV[2] == '1' then
    redis.call('HSET', KEYS[2], 'settled', redis.call('HGET', KEYS[2], 'run_id'))
  end
end
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
