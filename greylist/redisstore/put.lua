-- Merges an entry. KEYS: the entry. ARGV: "t" and first, last, passed, or "c"
-- and passes, last, manual; and what to keep it for.
local a, b, c = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local x, y, z = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+) (%d+)$')
x, y, z = tonumber(x) or 0, tonumber(y) or 0, tonumber(z) or 0
local keep = true
if ARGV[1] == 't' then
  if y ~= 0 and b == 0 then
    a, b, c = x, y, z
  elseif y ~= 0 then
    local passed = math.min(c, z)
    if passed == 0 then passed = math.max(c, z) end
    a, b, c = math.min(a, x), math.max(b, y), passed
  end
else
  a, b, c = math.max(a, x), math.max(b, y), math.max(c, z)
  keep = c ~= 1
end
local value = string.format('%d %d %d', a, b, c)
if keep then
  redis.call('SET', KEYS[1], value, 'PX', ARGV[5])
else
  redis.call('SET', KEYS[1], value)
end
return 1
