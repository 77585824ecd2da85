-- Writes changes to the state of a label, unless they were written before or another process has
-- taken over.
--
--   KEYS[1]  lock's hash, with the fencing token
--   KEYS[2]  note
--   KEYS[3]  members
--   KEYS[4]  times of publication
--   ARGV[1]  fencing token
--   ARGV[2]  number of this write, counted by its process
--   ARGV[3]  milliseconds to keep members and times (0: no expiry)
--   ARGV[4]  note
--   ARGV[5]  token of a new set of members; empty to keep the one that there is
--   ARGV[6]  token of the set of members that the process works on; empty if there is none
--   ARGV[7]  number of records, ARGV[8] of times, ARGV[9] of members to delete
--   ARGV[10] and up: ids and records, ids and times, ids
--
-- Returns 'OK', 'fence' if another process has taken over, 'lost' if the server has lost its data, or
-- 'members' if the set of members is another one.
local at = redis.call('HMGET', KEYS[1], 'fence', 'written')
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
if ARGV[5] == '' and ARGV[6] ~= '' and redis.call('HGET', KEYS[3], '') ~= ARGV[6] then
  return 'members'
end
if ARGV[5] ~= '' then
  redis.call('DEL', KEYS[3])
  redis.call('HSET', KEYS[3], '', ARGV[5])
end
-- In pieces, because a call takes a limited number of values.
local function in_pieces(command, key, first, count)
  for from = first, first + count - 1, 1000 do
    redis.call(command, key, unpack(ARGV, from, math.min(from + 999, first + count - 1)))
  end
end
local records, times, deleted = 2 * ARGV[7], 2 * ARGV[8], 0 + ARGV[9]
in_pieces('HSET', KEYS[3], 10, records)
in_pieces('HSET', KEYS[4], 10 + records, times)
in_pieces('HDEL', KEYS[3], 10 + records + times, deleted)
redis.call('SET', KEYS[2], ARGV[4])
redis.call('HSET', KEYS[1], 'written', written)
if ARGV[3] ~= '0' then
  redis.call('PEXPIRE', KEYS[3], ARGV[3])
  redis.call('PEXPIRE', KEYS[4], ARGV[3])
else
  redis.call('PERSIST', KEYS[3])
  redis.call('PERSIST', KEYS[4])
end
return 'OK'
