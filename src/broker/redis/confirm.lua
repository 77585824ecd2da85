-- Records that the list contains chats that the run has handled before. Appends nothing.
--
--   KEYS     as for an append
--   ARGV[1]  fencing token
--   ARGV[2]  run id
--   ARGV[7]  milliseconds to keep the members (0: no expiry)
--   ARGV[21] and up: chat ids
--
-- Returns 'OK', or 'fence', 'run' or 'members' for the check that failed.
local at = redis.call('HMGET', KEYS[2], 'fence', 'run_id')
if at[1] ~= ARGV[1] then
  return 'fence'
end
if at[2] ~= ARGV[2] then
  return 'run'
end
local ids = {unpack(ARGV, 21)}
ids[#ids + 1] = ':'
local records = redis.call('HMGET', KEYS[4], unpack(ids))
ids[#ids] = nil
if records[#ids + 1] ~= ARGV[14] then
  return 'members'
end
local latest, changes = {}, {}
for k, id in ipairs(ids) do
  local judged = judge(latest[id] or records[k] or '')
  latest[id] = judged.left
  changes[2 * k - 1], changes[2 * k] = id, judged.left
end
if #changes > 0 then
  redis.call('HSET', KEYS[4], unpack(changes))
  record_counts(KEYS[2], KEYS[5])
end
if ARGV[7] ~= '0' then
  redis.call('PEXPIRE', KEYS[4], ARGV[7])
else
  redis.call('PERSIST', KEYS[4])
end
return 'OK'
