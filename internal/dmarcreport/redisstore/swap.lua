-- Replaces a note, if it is what the caller thinks it is.
-- KEYS: the hash of notes. ARGV: name, old, new, now, until, most notes.
-- A note is "until text". Returns 1 when it was replaced.
local is = redis.call('HGET', KEYS[1], ARGV[1])
local old = ''
if is then
  local till, text = string.match(is, '^(%d+) (.*)$')
  if tonumber(till) >= tonumber(ARGV[4]) then
    old = text
  end
end
if old ~= ARGV[2] then
  return 0
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return 1
end
if not is and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[6]) then
  return redis.error_reply('too many notes about reports')
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[5] .. ' ' .. ARGV[3])
return 1
