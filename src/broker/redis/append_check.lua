-- Appends a batch and moves the checkpoint with it, or does neither. The script has three parts: this
-- one checks who appends and where, the second one appends (all chats, or those that are selected),
-- and the third one moves the checkpoint.
--
--   KEYS[1]  stream
--   KEYS[2]  checkpoint
--   KEYS[3]  times of publication (only with append_selected.lua, as are the next two)
--   KEYS[4]  members
--   KEYS[5]  note about the members
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
-- Returns {chats that were not appended because they were published before, chats that were not
-- appended because they are known}. If the batch is rejected, returns 'fence', 'run' or 'position'
-- for the check that failed, 'stream' if the stream was deleted, or 'members' if the set of members
-- is not the one that the run began with.
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
local call = redis.call
local stream, run, field, label = KEYS[1], ARGV[2], ARGV[10], ARGV[11]
local first, last
local chats, suppressed, known = ARGV[6], 0, 0
