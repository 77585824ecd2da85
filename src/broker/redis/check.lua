-- Executes every command that a run uses and cleans up after itself. On the real stream and
-- checkpoint it runs only commands that change nothing.
--
--   KEYS[1]  stream for the check, which does not exist otherwise
--   KEYS[2]  hash for the check, which does not exist otherwise
--   KEYS[3]  manifest for the check, which does not exist otherwise
--   KEYS[4]  real stream
--   KEYS[5]  real checkpoint
--
-- Returns 1 if all commands behave as expected, else 0.
local call = redis.call
local id = call('XADD', KEYS[1], '*', 'a', 'b')
call('HSET', KEYS[2], 'a', id)
call('HSETNX', KEYS[2], 'a', id)
call('HINCRBY', KEYS[2], 'b', 1)
call('HDEL', KEYS[2], 'b')
call('PEXPIRE', KEYS[2], 1000)
call('PERSIST', KEYS[2])
call('XTRIM', KEYS[1], 'MINID', '~', '0')
local found = call('HMGET', KEYS[2], 'a')[1] == id and call('HGET', KEYS[2], 'a') == id
  and call('HEXISTS', KEYS[2], 'b') == 0
  and call('EXISTS', KEYS[1]) == 1 and call('XLEN', KEYS[1]) == 1
  and #call('XRANGE', KEYS[1], '-', '+', 'COUNT', 2) == 1
call('TIME')
call('DEL', KEYS[1], KEYS[2])
call('SET', KEYS[2], 'a', 'PX', 1000)
found = found and call('GET', KEYS[2]) == 'a' and call('PTTL', KEYS[2]) > 0
call('DEL', KEYS[2])
call('SADD', KEYS[2], 'a')
call('EXPIRE', KEYS[2], 1)
found = found and call('SMISMEMBER', KEYS[2], 'a')[1] == 1
call('DEL', KEYS[2])
call('HSET', KEYS[3], 'a', id)
call('DEL', KEYS[3])
call('XTRIM', KEYS[4], 'MINID', '~', '0')
call('HDEL', KEYS[5], '')
return found and 1 or 0
