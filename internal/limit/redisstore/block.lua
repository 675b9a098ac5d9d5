-- Blocks a login. KEYS: the blocked logins. ARGV: the login, milliseconds until the
-- block ends or 0 for never, the time in milliseconds or 0 for the server's, and the
-- most blocks. Blocks that have ended are removed. It returns 1, or 0 if there are too
-- many blocks.
local key, login, lasts, now, most = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if now == 0 then
  local t = redis.call('TIME')
  now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
local function int(n) return string.format('%.0f', n) end

local all, active = redis.call('HGETALL', key), 0
for i = 1, #all, 2 do
  local ends = tonumber(string.match(all[i + 1], '^%d+ (%d+)$'))
  if ends and ends ~= 0 and ends <= now then
    redis.call('HDEL', key, all[i])
  elseif all[i] ~= login then
    active = active + 1
  end
end
if active >= most then return 0 end
redis.call('HSET', key, login, int(now) .. ' ' .. int(lasts == 0 and 0 or now + lasts))
return 1
