-- Takes the turn at the state of a label: for a batch of a run, or for a batch of events.
--
--   KEYS[1]  turn
--   KEYS[2]  lock's hash
--   KEYS[3]  lock
--   KEYS[4]  chats in flight
--   ARGV[1]  owner of the turn
--   ARGV[2]  milliseconds until the turn expires
--   ARGV[3]  'run' or 'events'
--   ARGV[4] and up: chats of the events
--
-- Returns 'OK', or 'wait' if another owner has the turn, a run waits for it, or a run has one of the
-- chats in flight.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner = call('GET', KEYS[1])
local is_free = not owner or owner == ARGV[1]
if ARGV[3] == 'run' then
  if not is_free then
    -- Events let the run go first, as long as it asks.
    call('HSET', KEYS[2], 'waiting', string.format('%.0f', now + 1000))
    return 'wait'
  end
  call('HDEL', KEYS[2], 'waiting')
else
  local waiting = tonumber(call('HGET', KEYS[2], 'waiting') or '0')
  if not is_free or waiting > now then
    return 'wait'
  end
  if call('EXISTS', KEYS[3]) == 0 then
    -- Their run has ended. If it still lives, it finds that they are gone, and decides again.
    call('UNLINK', KEYS[4])
  end
  for i = 4, #ARGV do
    if call('SISMEMBER', KEYS[4], ARGV[i]) == 1 then
      return 'wait'
    end
  end
end
call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 'OK'
