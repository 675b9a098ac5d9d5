-- One sighting. KEYS: the triplets of domain and network, the clients of
-- domain and network, the network's window. ARGV: now, delay, retry window,
-- pass TTL, allow after, allow TTL, network cap, daemon full, has domain, has
-- claimed domain. Times in milliseconds; the server's clock is never asked.
-- It returns the state before, as greylist.Record has it, and writes what
-- greylist.Record.Advance says.
local now, delay, retry, pass_ttl = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local allow_after, allow_ttl, cap = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local full, has_domain, has_claimed = ARGV[8] == '1', ARGV[9] == '1', ARGV[10] == '1'
local window = 3600000
local hour = 3600000

local function read(key, on, a, b, c)
  if not on then return {0, 0, 0} end
  local v = redis.call('HMGET', key, a, b, c)
  return {tonumber(v[1]) or 0, tonumber(v[2]) or 0, tonumber(v[3]) or 0}
end

local d = read(KEYS[1], has_domain, 'f', 'l', 'p')
local n = read(KEYS[2], true, 'f', 'l', 'p')
local dc = read(KEYS[3], has_claimed, 'n', 'l', 'm')
local nc = read(KEYS[4], true, 'n', 'l', 'm')
local refused = 0

local function answer()
  return {d[1], d[2], d[3], n[1], n[2], n[3], dc[1], dc[2], dc[3], nc[1], nc[2], nc[3], refused}
end

-- Expiry is for the server's memory only, so it may be generous.
local function keep(key, ttl)
  redis.pcall('PEXPIRE', key, math.max(1000, math.floor(ttl * 1.5)))
end

local function allowed(c)
  return c[3] == 1 or allow_after > 0 and c[1] >= allow_after and c[2] ~= 0 and now - c[2] <= allow_ttl
end

local function touch(key, c)
  if not allowed(c) or not (c[2] > now or now - c[2] >= hour) then return end
  -- A server that is full may refuse this: the answer holds all the same.
  redis.pcall('HSET', key, 'l', now)
  if c[3] ~= 1 then keep(key, allow_ttl) end
end

if allowed(dc) or allowed(nc) then
  touch(KEYS[3], dc)
  touch(KEYS[4], nc)
  return answer()
end

local function clamp(t)
  return {math.min(t[1], now), math.min(t[2], now), math.min(t[3], now)}
end

local function live(t)
  if t[2] == 0 then return false end
  if t[3] ~= 0 then return now - t[2] <= pass_ttl end
  return now - t[1] <= retry
end

local cd, cn = clamp(d), clamp(n)
local t
if live(cd) and live(cn) then
  local passed = math.min(cd[3], cn[3])
  if passed == 0 then passed = math.max(cd[3], cn[3]) end
  t = {math.min(cd[1], cn[1]), math.max(cd[2], cn[2]), passed}
elseif live(cd) then
  t = cd
elseif live(cn) then
  t = cn
end

if not t then
  local w = redis.call('HMGET', KEYS[5], 's', 'n')
  local start, made = tonumber(w[1]) or 0, tonumber(w[2]) or 0
  if made > 0 and (now < start or now - start >= window) then made = 0 end
  if cap > 0 and made >= cap then
    refused = 1
    return answer()
  end
  if full then
    refused = 2
    return answer()
  end
  if made == 0 then start = now end
  redis.call('HSET', KEYS[5], 's', start, 'n', made + 1)
  keep(KEYS[5], window)
  t = {now, now, 0}
end

t[2] = now
local had_passed = t[3] ~= 0
if not had_passed and now - t[1] >= delay then t[3] = now end
local ttl = retry
if t[3] ~= 0 then ttl = pass_ttl end

local function write(key)
  local done = redis.pcall('HSET', key, 'f', t[1], 'l', t[2], 'p', t[3])
  if type(done) == 'table' and done.err then
    -- What has passed before passes on a full server too.
    if had_passed then return nil end
    return done
  end
  keep(key, ttl)
end

local failed = write(KEYS[2])
if has_domain then failed = write(KEYS[1]) or failed end
return failed or answer()
