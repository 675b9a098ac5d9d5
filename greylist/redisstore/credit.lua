-- Counts a first pass. KEYS: the client. ARGV: now, what to keep it for, the
-- interval and the greatest count.
local now, interval, most = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local n, l, m = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+) (%d+)$')
local passes, last = tonumber(n) or 0, tonumber(l) or 0
if last ~= 0 and last <= now and now - last < interval then return 0 end
local value = string.format('%d %d %d', math.min(passes + 1, most), math.max(last, now), tonumber(m) or 0)
if m == '1' then
  redis.call('SET', KEYS[1], value)
else
  redis.call('SET', KEYS[1], value, 'PX', ARGV[2])
end
return 1
