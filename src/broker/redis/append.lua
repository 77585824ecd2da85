-- Appends a batch and moves the checkpoint with it, or does neither.
--
--   KEYS[1]  stream
--   KEYS[2]  checkpoint
--   ARGV[1]  fencing token
--   ARGV[2]  run id
--   ARGV[3]  expected position
--   ARGV[4]  position after the batch
--   ARGV[5]  digest at that position
--   ARGV[6]  number of chats in the batch
--   ARGV[7]  milliseconds to keep entries and the keys beside the stream (0: no expiry)
--   ARGV[8]  current time
--   ARGV[9]  values per message: 1, or 2 with a name
--   ARGV[10] field of the first value
--   ARGV[11] label id ('' if the messages contain it)
--   ARGV[12] and up: values
--
-- Returns the length of the stream. If the batch is rejected, returns 'fence', 'run' or 'position'
-- for the check that failed, or 'stream' if the stream was deleted.
local at = redis.call('HMGET', KEYS[2], 'fence', 'run_id', 'position', 'first_id')
if at[1] ~= ARGV[1] then
  return 'fence'
end
if at[2] ~= ARGV[2] then
  return 'run'
end
if at[3] ~= ARGV[3] then
  return 'position'
end
if at[4] and redis.call('EXISTS', KEYS[1]) == 0 then
  return 'stream'
end
local stream, run, field, label = KEYS[1], ARGV[2], ARGV[10], ARGV[11]
local names = field == 'chat_ids' and 'names' or 'name'
local call = redis.call
local first, last
if label == '' then
  for i = 12, #ARGV do
    last = call('XADD', stream, '*', field, ARGV[i])
    first = first or last
  end
elseif ARGV[9] == '1' then
  for i = 12, #ARGV do
    last = call('XADD', stream, '*', field, ARGV[i], 'label_id', label, 'run_id', run)
    first = first or last
  end
else
  for i = 12, #ARGV, 2 do
    if ARGV[i + 1] == '' then
      last = call('XADD', stream, '*', field, ARGV[i], 'label_id', label, 'run_id', run)
    else
      last = call('XADD', stream, '*', field, ARGV[i], 'label_id', label, 'run_id', run,
        names, ARGV[i + 1])
    end
    first = first or last
  end
end
call('HSET', KEYS[2], 'position', ARGV[4], 'digest', ARGV[5], 'at', ARGV[8])
call('HINCRBY', KEYS[2], 'chats', ARGV[6])
if first then
  call('HSETNX', KEYS[2], 'first_id', first)
  call('HSET', KEYS[2], 'last_id', last)
end
if ARGV[7] ~= '0' then
  call('PEXPIRE', KEYS[2], ARGV[7])
else
  call('PERSIST', KEYS[2])
end
if ARGV[7] ~= '0' then
  local now = call('TIME')
  local oldest = now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[7]
  call('XTRIM', stream, 'MINID', '~', string.format('%.0f', oldest))
end
return call('XLEN', stream)
