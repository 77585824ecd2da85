-- Releases the lock if this owner still holds it. A delayed heartbeat cannot take it again, because
-- fence_owner is removed.
--
--   KEYS[1]  lock
--   KEYS[2]  checkpoint
--   ARGV[1]  owner
--   ARGV[2]  '1' if the owner knows that its run has ended; the run is then recorded as settled
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
