-- Counts a batch up.
-- KEYS: one key of the store, for its node. ARGV: tag, batch ID, seconds to keep,
-- day, domain, policy, most rows, most domains, name of the note that seals the report,
-- first day of late messages or 0; then hash, row, count, plain of each.
-- Returns how many messages had no room, or -1 if the report is sealed.
local tag, day, domain = ARGV[1], ARGV[4], ARGV[5]
local keep = tonumber(ARGV[3])
local batch = tag .. 'rb:' .. ARGV[2]
if redis.call('EXISTS', batch) == 1 then
  return 0
end
if redis.call('HEXISTS', tag .. 'rn', ARGV[9]) == 1 then
  return -1
end
redis.call('SET', batch, '1', 'EX', 3600)
local domains, sums = tag .. 'rd:' .. day, tag .. 'rs:' .. day
local counts, rows = tag .. 'rc:' .. day .. ':' .. domain, tag .. 'rr:' .. day .. ':' .. domain
local room = redis.call('HEXISTS', domains, domain) == 1 or redis.call('HLEN', domains) < tonumber(ARGV[8])
if room then
  local since = tonumber(ARGV[10])
  if since == 0 then
    redis.call('HSET', domains, domain, ARGV[6])
  else
    redis.call('HSETNX', domains, domain, ARGV[6])
    local was = tonumber(redis.call('HGET', sums, 's ' .. domain) or since)
    redis.call('HSET', sums, 's ' .. domain, math.min(was, since))
  end
  redis.call('ZADD', tag .. 'ry', day, day)
end
local lost = 0
for i = 11, #ARGV, 4 do
  local n = tonumber(ARGV[i + 2])
  local known = redis.call('HEXISTS', counts, ARGV[i]) == 1
  if not room or (not known and tonumber(redis.call('HGET', sums, 'rows') or '0') >= tonumber(ARGV[7])) then
    lost = lost + n
  else
    redis.call('HINCRBY', counts, ARGV[i], n)
    if not known then
      redis.call('RPUSH', rows, ARGV[i + 1])
      redis.call('HINCRBY', sums, 'rows', 1)
      redis.call('HINCRBY', sums, 'r ' .. domain, 1)
    end
    redis.call('HINCRBY', sums, 'm ' .. domain, n)
    if ARGV[i + 3] == '1' then
      redis.call('HINCRBY', sums, 'p ' .. domain, n)
    end
  end
end
for _, key in ipairs({domains, sums, counts, rows}) do
  redis.call('EXPIRE', key, keep)
end
return lost
