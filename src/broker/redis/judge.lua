-- Decides about the chats of a list by their records, as src/state/record.rs does. A record is
-- <state><source><as of>:<since>:<seen>:<published>; lists have whole seconds, events decimals.
--
--   ARGV[13] members to publish: 'all', 'new' or 'none'
--   ARGV[14] token of the set of members
--   ARGV[15] time that the list is current as of, in seconds since 1970
--   ARGV[16] pass
--   ARGV[17] first pass of the run
--   ARGV[18] first pass whose publications are on the stream
--   ARGV[19] seconds for which a chat must have been a member
local publish, as_of, pass = ARGV[13], ARGV[15], ARGV[16]
local list_time, first_pass, published_from = tonumber(as_of), tonumber(ARGV[17]), tonumber(ARGV[18])
local min_age = tonumber(ARGV[19])
-- What is decided about each record. Most chats of a list have the same few records.
local judgements = {}

-- Returns the parts of the record of a chat that the list contains.
local function confirm(record)
  local state, source, at, since, seen, published =
    string.match(record, '^(%a)(%a)([%d.]+):(%d+):(%d+):(%d+)$')
  if not state and record ~= '' then
    -- Another version has written it: it is no news.
    state, source, at, since, seen, published = 'm', 'l', '0', '0', '0', '0'
  end
  local is_member = state == 'm' or state == 'n'
  if not state or (state == 'r' and (source == 'l' or tonumber(at) < list_time)) then
    return 'n', 'l', as_of, as_of, published or '0', not state and 'joined' or 'rejoined', true
  end
  local is_first = seen ~= pass and is_member
  if source == 'l' or tonumber(at) < list_time then
    return state, 'l', as_of, since, published, 'stays', is_first
  end
  -- The event is newer.
  return state, source, at, since, published, 'stays', is_first
end

-- Returns the verdict and the three possible new records, and counts the chats of each record.
local function judge(record)
  local judged = judgements[record]
  if judged then
    judged.times = judged.times + 1
    return judged
  end
  local state, source, at, since, published, change, is_first = confirm(record)
  local function text(state, published)
    return state .. source .. at .. ':' .. since .. ':' .. pass .. ':' .. published
  end
  local last, verdict = tonumber(published), nil
  if last >= published_from then
    verdict = 'suppress'
  elseif last >= first_pass then
    -- This run has published it, and the stream has lost it since.
    verdict = 'publish'
  elseif publish == 'none' or (publish == 'new' and state ~= 'n') then
    verdict = 'known'
  elseif min_age > 0 and (state == 'r' or list_time - tonumber(since) < min_age) then
    verdict = 'suppress'
  else
    verdict = 'publish'
  end
  local known = state == 'n' and 'm' or state
  judged = {
    times = 1,
    verdict = verdict,
    published = text(known, pass),
    known = text(known, published),
    left = text(state, published),
    change = change,
    is_first = is_first,
  }
  judgements[record] = judged
  return judged
end

-- Records how the numbers of members, of removed chats and of confirmed chats change.
local function record_counts(checkpoint, note)
  local joined, rejoined, confirmed = 0, 0, 0
  for _, judged in pairs(judgements) do
    if judged.change ~= 'stays' then
      joined = joined + judged.times
    end
    if judged.change == 'rejoined' then
      rejoined = rejoined + judged.times
    end
    if judged.is_first then
      confirmed = confirmed + judged.times
    end
  end
  if joined > 0 then
    redis.call('HINCRBY', note, 'members', joined)
  end
  if rejoined > 0 then
    redis.call('HINCRBY', note, 'removed', -rejoined)
  end
  if confirmed > 0 then
    redis.call('HINCRBY', checkpoint, 'confirmed', confirmed)
  end
end
