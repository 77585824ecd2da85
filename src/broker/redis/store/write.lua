-- Writes changes to the state of a label, and ends the turn, unless the changes were written before,
-- another process has taken over, or the turn was lost.
--
--   KEYS[1]  lock's hash, with the fencing token
--   KEYS[2]  note
--   KEYS[3]  members; '' has the token of the set, ':' the number of members, and '::' how often
--            events have changed it
--   KEYS[4]  times of publication
--   KEYS[5]  turn
--   KEYS[6]  chats in flight
--   ARGV[1]  fencing token
--   ARGV[2]  number of this write, counted by its process
--   ARGV[3]  milliseconds to keep members and times (0: no expiry)
--   ARGV[4]  note
--   ARGV[5]  token of a new set of members; empty to keep the one that there is
--   ARGV[6]  token of the set of members that the process works on; empty if there is none
--   ARGV[7]  owner of the turn; empty if it was not taken
--   ARGV[8]  number of members as counted (empty: not counted), ARGV[9] '::' before, ARGV[10] the number
--            by a note of an earlier version, ARGV[11] by how much it changes
--   ARGV[12] '1' to clear the chats in flight
--   ARGV[13] number of records, ARGV[14] of times, ARGV[15] of members to delete, ARGV[16] of chats
--            that are in flight from now on
--   ARGV[17] seconds until those expire
--   ARGV[18] and up: ids and records, ids and times, ids, ids
--
-- Returns 'OK', 'fence' if another process has taken over, 'lost' if the server has lost its data,
-- 'members' if the set of members is another one, or 'outdated' if what was read may have changed.
local call = redis.call
local at = call('HMGET', KEYS[1], 'fence', 'written')
if not at[1] then
  return 'lost'
end
if at[1] ~= ARGV[1] then
  return 'fence'
end
local written = ARGV[1] .. ':' .. ARGV[2]
local last = at[2] and string.match(at[2], '^' .. ARGV[1] .. ':(%d+)$')
if last and tonumber(last) >= tonumber(ARGV[2]) then
  return 'OK'
end
if ARGV[7] ~= '' and call('GET', KEYS[5]) ~= ARGV[7] then
  return 'outdated'
end
local records, times, deleted, in_flight = 2 * ARGV[13], 2 * ARGV[14], 0 + ARGV[15], 0 + ARGV[16]
-- With the turn, what was read is still so.
if ARGV[12] == '1' and ARGV[7] == '' and records + times > 0 and call('EXISTS', KEYS[6]) == 0 then
  return 'outdated'
end
if ARGV[5] == '' and ARGV[6] ~= '' and call('HGET', KEYS[3], '') ~= ARGV[6] then
  return 'members'
end
if ARGV[5] ~= '' then
  call('DEL', KEYS[3])
  call('HSET', KEYS[3], '', ARGV[5], ':', '0', '::', '0')
elseif ARGV[6] ~= '' then
  call('HSETNX', KEYS[3], ':', ARGV[10])
  if ARGV[8] ~= '' and (call('HGET', KEYS[3], '::') or '0') == ARGV[9] then
    call('HSET', KEYS[3], ':', ARGV[8])
  end
end
if ARGV[11] ~= '0' then
  call('HINCRBY', KEYS[3], ':', ARGV[11])
end
-- In pieces, because a call takes a limited number of values.
local function in_pieces(command, key, first, count)
  for from = first, first + count - 1, 1000 do
    call(command, key, unpack(ARGV, from, math.min(from + 999, first + count - 1)))
  end
end
in_pieces('HSET', KEYS[3], 18, records)
in_pieces('HSET', KEYS[4], 18 + records, times)
in_pieces('HDEL', KEYS[3], 18 + records + times, deleted)
if ARGV[12] == '1' then
  call('UNLINK', KEYS[6])
end
if in_flight > 0 then
  in_pieces('SADD', KEYS[6], 18 + records + times + deleted, in_flight)
  call('EXPIRE', KEYS[6], ARGV[17])
end
call('SET', KEYS[2], ARGV[4])
call('HSET', KEYS[1], 'written', written)
if ARGV[3] ~= '0' then
  call('PEXPIRE', KEYS[3], ARGV[3])
  call('PEXPIRE', KEYS[4], ARGV[3])
else
  call('PERSIST', KEYS[3])
  call('PERSIST', KEYS[4])
end
if ARGV[7] ~= '' then
  call('DEL', KEYS[5])
end
return 'OK'
