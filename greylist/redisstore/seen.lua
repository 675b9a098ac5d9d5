-- One sighting. KEYS: the triplets of domain and network, the clients of
-- domain and network, the network's window. ARGV: now, delay, retry window,
-- pass TTL, allow after, allow TTL, network cap, daemon full, has domain, has
-- claimed domain. Times in milliseconds; the server's clock is never asked.
-- It returns the first four values as they were, then the refusal, as
-- greylist.Record has it, and writes what greylist.Record.Advance says.
-- Every call of the server is dear: all is read with one, and expiry is set
-- with the value.
local call, pcall_, match, number = redis.call, redis.pcall, string.match, tonumber
local now, delay, retry, pass_ttl = number(ARGV[1]), number(ARGV[2]), number(ARGV[3]), number(ARGV[4])
local allow_after, allow_ttl, cap = number(ARGV[5]), number(ARGV[6]), number(ARGV[7])
local has_domain, has_claimed = ARGV[9] == '1', ARGV[10] == '1'
local window, hour = 3600000, 3600000

local was = call('MGET', unpack(KEYS))
if not has_domain then was[1] = false end
if not has_claimed then was[3] = false end
local refused = 0

local function answer()
  return {was[1] or '', was[2] or '', was[3] or '', was[4] or '', refused}
end

local function read(value)
  if not value then return 0, 0, 0 end
  local a, b, c = match(value, '^(%d+) (%d+) (%d+)$')
  return number(a) or 0, number(b) or 0, number(c) or 0
end

-- Expiry is for the server's memory only, so it may be generous.
local function keep(ttl)
  return string.format('%d', math.max(1000, math.floor(ttl * 1.5)))
end

local function text(a, b, c)
  return string.format('%d %d %d', a, b, c)
end

if was[3] or was[4] then
  local function allowed(passes, last, manual)
    return manual == 1 or allow_after > 0 and passes >= allow_after and last ~= 0 and now - last <= allow_ttl
  end

  -- A server that is full may refuse this: the answer holds all the same.
  local function touch(key, passes, last, manual)
    if not allowed(passes, last, manual) or not (last > now or now - last >= hour) then return end
    if manual == 1 then
      pcall_('SET', key, text(passes, now, manual))
    else
      pcall_('SET', key, text(passes, now, manual), 'PX', keep(allow_ttl))
    end
  end

  local dn, dl, dm = read(was[3])
  local nn, nl, nm = read(was[4])
  if allowed(dn, dl, dm) or allowed(nn, nl, nm) then
    touch(KEYS[3], dn, dl, dm)
    touch(KEYS[4], nn, nl, nm)
    return answer()
  end
end

-- A triplet that counts, with times in the future taken for now; nil if it has
-- been forgotten.
local function live(value)
  local first, last, passed = read(value)
  if last == 0 then return nil end
  first, last, passed = math.min(first, now), math.min(last, now), math.min(passed, now)
  if passed ~= 0 then
    if now - last > pass_ttl then return nil end
  elseif now - first > retry then
    return nil
  end
  return first, passed
end

local first, passed = live(was[1])
local other, other_passed = live(was[2])
if not first then
  first, passed = other, other_passed
elseif other then
  first = math.min(first, other)
  if passed == 0 or other_passed == 0 then
    passed = math.max(passed, other_passed)
  else
    passed = math.min(passed, other_passed)
  end
end

if not first then
  local start, made = 0, 0
  if was[5] then start, made = read(was[5]) end
  if made > 0 and (now < start or now - start >= window) then made = 0 end
  if cap > 0 and made >= cap then
    refused = 1
    return answer()
  end
  if ARGV[8] == '1' then
    refused = 2
    return answer()
  end
  if made == 0 then start = now end
  call('SET', KEYS[5], text(start, made + 1, 0), 'PX', keep(window))
  first, passed = now, 0
end

local had_passed = passed ~= 0
if not had_passed and now - first >= delay then passed = now end
local value = text(first, now, passed)
local ttl = keep(passed ~= 0 and pass_ttl or retry)

local failed
local function write(key)
  local done = pcall_('SET', key, value, 'PX', ttl)
  -- What has passed before passes on a full server too.
  if done.err and not had_passed then failed = done end
end

write(KEYS[2])
if has_domain then write(KEYS[1]) end
return failed or answer()
