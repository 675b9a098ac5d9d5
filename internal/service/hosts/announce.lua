-- Writes the record of a host. KEYS: the hash of all hosts. ARGV: the field of the host, its
-- record, how long a record is kept in milliseconds, the most records, and the most octets of
-- a value. A value is the time of the first record of its field and that of the latest one, in
-- milliseconds of the server's clock, and the record. What has another form goes.
local keep, most, longest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('HLEN', KEYS[1]) > 4 * most then
  redis.call('DEL', KEYS[1])
end
local since, others, oldest, last = now, 0, nil, nil
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local value = ''
  if redis.call('HSTRLEN', KEYS[1], field) <= longest then
    value = redis.call('HGET', KEYS[1], field)
  end
  local first, latest = string.match(value, '^(%d+) (%d+) ')
  first, latest = tonumber(first), tonumber(latest)
  if field == ARGV[1] then
    since = math.min(first or now, now)
  elseif not latest or math.abs(now - latest) > keep then
    redis.call('HDEL', KEYS[1], field)
  else
    others = others + 1
    if not last or latest < last then
      oldest, last = field, latest
    end
  end
end
if others >= most then
  redis.call('HDEL', KEYS[1], oldest)
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f ', since, now) .. ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
