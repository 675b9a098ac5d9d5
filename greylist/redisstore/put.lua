-- Merges an entry. KEYS: the entry. ARGV: "t" and first, last, passed, or "c"
-- and passes, last, manual; and what to keep it for, 0 for ever.
local function n(x) return tonumber(x) or 0 end
local ttl = n(ARGV[5])
if ARGV[1] == 't' then
  local v = redis.call('HMGET', KEYS[1], 'f', 'l', 'p')
  local f, l, p = n(ARGV[2]), n(ARGV[3]), n(ARGV[4])
  if n(v[2]) ~= 0 then
    if l == 0 then
      f, l, p = n(v[1]), n(v[2]), n(v[3])
    else
      local passed = math.min(p, n(v[3]))
      if passed == 0 then passed = math.max(p, n(v[3])) end
      f, l, p = math.min(f, n(v[1])), math.max(l, n(v[2])), passed
    end
  end
  redis.call('HSET', KEYS[1], 'f', f, 'l', l, 'p', p)
else
  local v = redis.call('HMGET', KEYS[1], 'n', 'l', 'm')
  local manual = math.max(n(ARGV[4]), n(v[3]))
  redis.call('HSET', KEYS[1], 'n', math.max(n(ARGV[2]), n(v[1])), 'l', math.max(n(ARGV[3]), n(v[2])), 'm', manual)
  if manual == 1 then ttl = 0 end
end
if ttl > 0 then redis.call('PEXPIRE', KEYS[1], ttl) else redis.call('PERSIST', KEYS[1]) end
return 1
