-- Writes, as every script of the store does. KEYS: a key of its own, and that of the
-- generation. ARGV: what to keep the former for, and a new generation. It returns the
-- generation.
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
local generation = redis.call('GET', KEYS[2])
if not generation then
  generation = ARGV[2]
  redis.call('SET', KEYS[2], generation)
end
return generation
