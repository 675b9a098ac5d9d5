-- Counts a first pass. KEYS: the client. ARGV: now, what to keep it for, the
-- interval and the greatest count.
local now, ttl, interval, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local v = redis.call('HMGET', KEYS[1], 'n', 'l', 'm')
local passes, last = tonumber(v[1]) or 0, tonumber(v[2]) or 0
if last ~= 0 and last <= now and now - last < interval then return 0 end
redis.call('HSET', KEYS[1], 'n', math.min(passes + 1, most), 'l', now)
if v[3] ~= '1' then redis.call('PEXPIRE', KEYS[1], ttl) end
return 1
