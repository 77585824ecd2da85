-- Moves the checkpoint behind the batch, and trims the stream.
call('HSET', KEYS[2], 'position', ARGV[4], 'digest', ARGV[5], 'at', ARGV[8])
call('HINCRBY', KEYS[2], 'chats', chats)
if first then
  call('HSETNX', KEYS[2], 'first_id', first)
  call('HSET', KEYS[2], 'last_id', last)
end
if ARGV[7] ~= '0' then
  call('PEXPIRE', KEYS[2], ARGV[7])
else
  call('PERSIST', KEYS[2])
end
if ARGV[7] ~= '0' then
  local now = call('TIME')
  local oldest = now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[7]
  call('XTRIM', stream, 'MINID', '~', string.format('%.0f', oldest))
end
return {suppressed, known}
