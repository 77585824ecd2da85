-- Adds members to the dedup set if the set still belongs to the read-back that calls. Otherwise a
-- delayed duplicate of a call, or a worker that has lost its lock, could add to the set of another.
--
--   KEYS[1]  dedup set
--   ARGV[1]  token of the read-back
--   ARGV[2]  seconds to keep the set
--   ARGV[3] and up: members
--
-- Returns 1, or 0 if the set is missing or belongs to another read-back.
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then
  return 0
end
if #ARGV > 2 then
  redis.call('SADD', KEYS[1], unpack(ARGV, 3))
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
