-- Stores counts of labels, and removes those of labels that are gone.
--
--   KEYS[1]  counts: label id -> JSON
--   KEYS[2]  last runs: label id -> JSON
--   ARGV[1]  milliseconds to keep the counts (0: no expiry)
--   ARGV[2]  number of counts
--   ARGV[3]  '1' to remove the labels that are not among the last arguments
--   ARGV[4] and up: for each count the label id and the JSON, then the label ids to keep
local first_kept = 4 + 2 * tonumber(ARGV[2])
for i = 4, first_kept - 1, 2 do
  local id, json = ARGV[i], ARGV[i + 1]
  local count = cjson.decode(json)
  local stored = redis.call('HGET', KEYS[1], id)
  local is_read, before = pcall(cjson.decode, stored or '')
  if is_read and type(before) == 'table' then
    local is_changed = false
    if count.chats == cjson.null then
      count.chats, count.counted_at, is_changed = before.chats, before.counted_at, true
    end
    for _, member in ipairs({'name', 'color', 'deleted_at'}) do
      if (count[member] or cjson.null) == cjson.null then
        count[member], is_changed = before[member], true
      end
    end
    if is_changed then
      json = cjson.encode(count)
    end
  end
  redis.call('HSET', KEYS[1], id, json)
end
if ARGV[3] == '1' then
  local is_kept = {}
  for i = first_kept, #ARGV do
    is_kept[ARGV[i]] = true
  end
  for _, id in ipairs(redis.call('HKEYS', KEYS[1])) do
    if not is_kept[id] then
      redis.call('HDEL', KEYS[1], id)
      redis.call('HDEL', KEYS[2], id)
    end
  end
end
if ARGV[1] ~= '0' then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
else
  redis.call('PERSIST', KEYS[1])
end
return 1
