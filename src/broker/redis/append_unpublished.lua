-- Appends the chats that were not published to this queue recently, and records when they were.
--
--   ARGV[12]  seconds since the last publication in which a chat is not appended again
--   ARGV[13] and up: for each chat its values, for field 'data' with the chat id before them
local window, now = tonumber(ARGV[12]), tonumber(call('TIME')[1])
local is_data, has_name = field == 'data', ARGV[9] == '2'
local step = (is_data or has_name) and 2 or 1
local ids, published, marks = {}, {}, 0
for i = 13, #ARGV, step do
  ids[(i - 13) / step + 1] = ARGV[i]
end
local times = #ids > 0 and call('HMGET', KEYS[3], unpack(ids)) or {}
local is_repeat = {}
for k, id in ipairs(ids) do
  local at = tonumber(times[k] or nil)
  if is_repeat[id] or (at and now - at < window) then
    suppressed = suppressed + 1
  else
    local value = ARGV[13 + (k - 1) * step + 1]
    if is_data then
      last = call('XADD', stream, '*', field, value)
    elseif has_name and value ~= '' then
      last = call('XADD', stream, '*', field, id, 'label_id', label, 'run_id', run, 'name', value)
    else
      last = call('XADD', stream, '*', field, id, 'label_id', label, 'run_id', run)
    end
    first = first or last
    is_repeat[id] = true
    published[marks + 1], published[marks + 2] = id, now
    marks = marks + 2
  end
end
if marks > 0 then
  call('HSET', KEYS[3], unpack(published))
end
if ARGV[7] ~= '0' then
  call('PEXPIRE', KEYS[3], ARGV[7])
else
  call('PERSIST', KEYS[3])
end
chats = chats - suppressed
call('HINCRBY', KEYS[2], 'suppressed', suppressed)
