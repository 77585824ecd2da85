-- Appends the chats that are selected by their membership and by the time of their last
-- publication, and records both.
--
--   ARGV[12] seconds since the last publication in which a chat is not appended again; '' for none
--   ARGV[13] '' to keep no membership
--   ARGV[20] number of streams of the queue
--   ARGV[21] and up: for each chat its values, for field 'data' with the chat id before them
local window, now = tonumber(ARGV[12]), tonumber(call('TIME')[1])
local has_members = publish ~= ''
local is_data, has_name = field == 'data', ARGV[9] == '2'
local step = (is_data or has_name) and 2 or 1
local ids = {}
for i = 21, #ARGV, step do
  ids[(i - 21) / step + 1] = ARGV[i]
end
local records, times = {}, {}
if has_members then
  ids[#ids + 1] = ':'
  records = call('HMGET', KEYS[4], unpack(ids))
  ids[#ids] = nil
  if records[#ids + 1] ~= ARGV[14] then
    return 'members'
  end
end
local began, lost
if window then
  times = #ids > 0 and call('HMGET', KEYS[3], unpack(ids)) or {}
  local run_times = call('HMGET', KEYS[2], 'began', 'lost')
  began, lost = tonumber(run_times[1] or nil), tonumber(run_times[2] or nil)
end

-- Whether a chat was published within the window, and not by this run before the stream was lost.
local function is_recent(at)
  at = tonumber(at or nil)
  if not at or now - at >= window then
    return false
  end
  return not (lost and began and at >= began and at <= lost)
end

-- A list may contain a chat twice: what this batch has recorded counts.
local latest = {}
local changes, changed, publications, marked = {}, 0, {}, 0
for k, id in ipairs(ids) do
  local judged, verdict, record
  if has_members then
    judged = judge(latest[id] or records[k] or '')
    verdict, record = judged.verdict, judged.left
  else
    verdict = latest[id] and 'suppress' or 'publish'
  end
  if window and verdict == 'publish' and is_recent(times[k]) then
    verdict = 'suppress'
    record = judged and judged.known
  end
  if verdict == 'publish' then
    local value = ARGV[21 + (k - 1) * step + 1]
    if is_data then
      last = call('XADD', stream, '*', field, value)
    elseif has_name and value ~= '' then
      last = call('XADD', stream, '*', field, id, 'label_id', label, 'run_id', run, 'name', value)
    else
      last = call('XADD', stream, '*', field, id, 'label_id', label, 'run_id', run)
    end
    first = first or last
    record = judged and judged.published
  elseif verdict == 'known' then
    known = known + 1
    record = judged.known
  else
    suppressed = suppressed + 1
  end
  if window and (verdict == 'publish' or publish == 'none') then
    latest[id] = true
    publications[marked + 1], publications[marked + 2] = id, now
    marked = marked + 2
  end
  if has_members then
    latest[id] = record
    changes[changed + 1], changes[changed + 2] = id, record
    changed = changed + 2
  end
end
if changed > 0 then
  call('HSET', KEYS[4], unpack(changes))
  record_counts(KEYS[2], KEYS[5])
end
if has_members then
  if ARGV[7] ~= '0' then
    call('PEXPIRE', KEYS[4], ARGV[7])
  else
    call('PERSIST', KEYS[4])
  end
end
if window then
  -- The labels of a queue share the times: they are kept as long as the longest of their runs keeps
  -- them, which the field ':' tells in seconds (0: forever).
  local left = call('PTTL', KEYS[3])
  local kept, keep = tonumber(call('HGET', KEYS[3], ':') or nil), math.ceil(ARGV[7] / 1000)
  if not kept or (kept ~= 0 and (keep == 0 or keep > kept)) then
    kept = keep
  end
  call('HSET', KEYS[3], ':', kept, ':streams', ARGV[20])
  if marked > 0 then
    call('HSET', KEYS[3], unpack(publications))
  end
  if kept == 0 then
    call('PERSIST', KEYS[3])
  elseif left < tonumber(ARGV[7]) then
    call('PEXPIRE', KEYS[3], ARGV[7])
  end
end
chats = chats - suppressed - known
call('HINCRBY', KEYS[2], 'suppressed', suppressed)
call('HINCRBY', KEYS[2], 'known', known)
