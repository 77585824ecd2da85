-- Appends all chats.
local names = field == 'chat_ids' and 'names' or 'name'
if label == '' then
  for i = 12, #ARGV do
    last = call('XADD', stream, '*', field, ARGV[i])
    first = first or last
  end
elseif ARGV[9] == '1' then
  for i = 12, #ARGV do
    last = call('XADD', stream, '*', field, ARGV[i], 'label_id', label, 'run_id', run)
    first = first or last
  end
else
  for i = 12, #ARGV, 2 do
    if ARGV[i + 1] == '' then
      last = call('XADD', stream, '*', field, ARGV[i], 'label_id', label, 'run_id', run)
    else
      last = call('XADD', stream, '*', field, ARGV[i], 'label_id', label, 'run_id', run,
        names, ARGV[i + 1])
    end
    first = first or last
  end
end
