-- Writes what a batch of events has changed in the state of a label, and ends the turn, unless that was
-- lost. Begins a set of members if there is none.
--
--   KEYS[1]  turn
--   KEYS[2]  lock's hash
--   KEYS[3]  members, as for a run
--   KEYS[4]  times of publication
--   KEYS[5] and up: keys that remember the events
--   ARGV[1]  owner of the turn
--   ARGV[2]  milliseconds to keep members and times (0: no expiry)
--   ARGV[3]  milliseconds to remember the events
--   ARGV[4]  token of the set of members that was read; empty if there was none
--   ARGV[5]  token of a new set
--   ARGV[6]  number of members by a note of an earlier version
--   ARGV[7]  by how much that changes, ARGV[8] number of changes
--   ARGV[9]  number of records, ARGV[10] of times
--   ARGV[11] and up: ids and records, ids and times
--
-- Returns 'OK', or 'outdated' if what was read may have changed.
local call = redis.call
local token = call('HGET', KEYS[3], '') or ''
if call('GET', KEYS[1]) ~= ARGV[1] or (token ~= ARGV[4] and ARGV[4] ~= '') then
  return 'outdated'
end
if ARGV[4] == '' then
  -- What there may be is no set that chats can be compared with.
  call('UNLINK', KEYS[3])
  call('HSET', KEYS[3], '', ARGV[5], ':', '0')
else
  call('HSETNX', KEYS[3], ':', ARGV[6])
end
call('HINCRBY', KEYS[3], ':', ARGV[7])
call('HINCRBY', KEYS[3], '::', ARGV[8])
local records, times = 2 * ARGV[9], 2 * ARGV[10]
local function in_pieces(command, key, first, count)
  for from = first, first + count - 1, 1000 do
    call(command, key, unpack(ARGV, from, math.min(from + 999, first + count - 1)))
  end
end
in_pieces('HSET', KEYS[3], 11, records)
in_pieces('HSET', KEYS[4], 11 + records, times)
for i = 5, #KEYS do
  call('SET', KEYS[i], '1', 'PX', ARGV[3])
end
call('HSET', KEYS[2], 'tracked', '1')
for i = 2, 4 do
  if ARGV[2] ~= '0' then
    call('PEXPIRE', KEYS[i], ARGV[2])
  else
    call('PERSIST', KEYS[i])
  end
end
call('DEL', KEYS[1])
return 'OK'
