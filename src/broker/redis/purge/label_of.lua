-- Returns the label in the fields and values of an entry, in any format.
local function label_of(fields)
  local data
  for i = 1, #fields, 2 do
    if fields[i] == 'label_id' then
      return fields[i + 1]
    elseif fields[i] == 'data' then
      data = fields[i + 1]
    end
  end
  local is_read, message = pcall(cjson.decode, data or '')
  if not is_read or type(message) ~= 'table' then
    return nil
  end
  if type(message.data) == 'table' then
    message = message.data
  end
  return message.label_id
end
