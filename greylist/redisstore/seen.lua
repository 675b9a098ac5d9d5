-- One sighting. The settings come before this text, see newTerms: what is the
-- same for all sightings need not be sent, taken apart and thrown away with each.
-- KEYS: the network's triplet and client, the domain's client and triplet (the
-- former alone, or neither), and last the network's window, if cap bounds new
-- triplets. ARGV: now, and one more if the daemon is full. Times are in
-- milliseconds; the server's clock is never asked.
-- It returns what was known before: 0 for nothing, the triplet of the network if
-- there is no more, or the first four values and the refusal, as greylist.Record
-- has it, with ; between. It writes what greylist.Record.Advance says.
-- Every call of the server is dear, and so is what takes values apart and puts
-- them together: text is kept as text where it can be.
local now = ARGV[1]
local n = tonumber(now)
local entries = cap > 0 and #KEYS - 1 or #KEYS
local was
if #KEYS == 3 then
  was = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3])
else
  was = redis.call('MGET', unpack(KEYS))
end
local network_client, domain_client, domain_triplet = was[2], entries > 2 and was[3], entries > 3 and was[4]

local function answer(refused)
  if network_client or domain_client or domain_triplet or refused ~= 0 then
    return (was[1] or '') .. ';' .. (network_client or '') .. ';' .. (domain_client or '') .. ';' .. (domain_triplet or '') .. ';' .. refused
  end
  return was[1] or 0
end

-- Separates nearly everyone from those allowed, quickly: by hand is a 1 at the end.
local function earned(value)
  return value and (string.byte(value, -1) == 49 or allow_after > 0 and (tonumber(string.match(value, '^%d+')) or 0) >= allow_after)
end

if earned(network_client) or earned(domain_client) then
  -- Notes the use of a credit once an hour. A server that is full may refuse
  -- this: the answer holds all the same.
  local function allowed(value, key)
    local passes, last, manual = string.match(value or '', '^(%d+) (%d+) (%d+)$')
    if not passes then return false end
    last = tonumber(last)
    if manual ~= '1' and not (allow_after > 0 and tonumber(passes) >= allow_after and last ~= 0 and n - last <= allow_ttl) then
      return false
    end
    if n - last >= credit_interval then
      local touched = passes .. ' ' .. now .. ' ' .. manual
      if manual == '1' then
        redis.pcall('SET', key, touched)
      else
        redis.pcall('SET', key, touched, 'PX', keep_client)
      end
    end
    return true
  end

  local network = allowed(network_client, KEYS[2])
  if allowed(domain_client, KEYS[3]) or network then return answer(0) end
end

-- The first time of a triplet that counts, as text and number, when it passed,
-- likewise, with times in the future taken for now, and the last; nil if it has
-- been forgotten.
local function live(value)
  local a, b, c = string.match(value, '^(%d+) (%d+) (%d+)$')
  if not a or b == '0' then return nil end
  local first, passed = tonumber(a), tonumber(c)
  if first > n then first, a = n, now end
  if passed > n then passed, c = n, now end
  if passed ~= 0 then
    if n - tonumber(b) > pass_ttl then return nil end
  elseif n - first > retry_window then
    return nil
  end
  return a, first, c, passed, b
end

local a, first, c, passed, last
if was[1] then a, first, c, passed, last = live(was[1]) end
if domain_triplet and domain_triplet ~= was[1] then
  local oa, ofirst, oc, opassed, olast = live(domain_triplet)
  if not a then
    a, first, c, passed, last = oa, ofirst, oc, opassed, olast
  elseif oa then
    if tonumber(olast) > tonumber(last) then last = olast end
    if ofirst < first then a, first = oa, ofirst end
    if passed == 0 or opassed ~= 0 and opassed < passed then c, passed = oc, opassed end
  end
end

local had_passed = a and passed ~= 0
if not a then
  local full = ARGV[2]
  if cap > 0 then
    local start, made = string.match(was[#KEYS] or '', '^(%d+) (%d+)')
    start, made = tonumber(start) or 0, tonumber(made) or 0
    if n < start or n - start >= flood_window then start, made = n, 0 end
    if made >= cap then return answer('1 ' .. string.format('%d', start + flood_window)) end
    if not full then
      redis.call('SET', KEYS[#KEYS], string.format('%d %d 0', start, made + 1), 'PX', keep_window)
    end
  end
  if full then return answer(2) end
  a, first, c, passed = now, n, '0', 0
end
if had_passed and n - tonumber(last) < note_interval then
  local same = a .. ' ' .. last .. ' ' .. c
  if was[1] == same and (entries <= 3 or domain_triplet == same) then return answer(0) end
end
-- The clock of another host may be ahead: the latest sighting never goes back.
if not last or tonumber(last) < n then last = now end

if passed == 0 and n - first >= delay then c, passed = now, n end
local value, keep = a .. ' ' .. last .. ' ' .. c, passed ~= 0 and keep_passed or keep_waiting
local done = redis.pcall('SET', KEYS[1], value, 'PX', keep)
if entries > 3 then
  local also = redis.pcall('SET', KEYS[4], value, 'PX', keep)
  if also.err then done = also end
end
-- What has passed before passes on a full server too.
if done.err and not had_passed then return done end
return answer(0)
