-- Does all that the other scripts do, and leaves nothing behind.
-- KEYS  a stream and a hash that do not exist otherwise
local id = redis.call('XADD', KEYS[1], '*', 'a', 'b')
redis.call('HSET', KEYS[2], 'a', id)
redis.call('HSETNX', KEYS[2], 'a', id)
redis.call('HINCRBY', KEYS[2], 'b', 1)
redis.call('HDEL', KEYS[2], 'b')
redis.call('PEXPIRE', KEYS[2], 1000)
redis.call('PERSIST', KEYS[2])
redis.call('XTRIM', KEYS[1], 'MINID', '~', '0')
local found = redis.call('HMGET', KEYS[2], 'a')[1] == id and redis.call('XLEN', KEYS[1]) == 1
redis.call('TIME')
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('SET', KEYS[2], 'a', 'PX', 1000)
redis.call('DEL', KEYS[2])
return found and 1 or 0
