-- Returns the label of the first entry of a stream, if there is one.
--
--   KEYS[1]  stream
local entry = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return entry and label_of(entry[2])
