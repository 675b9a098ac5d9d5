-- Writes, as every script of the store does. KEYS: a key of its own. ARGV: what to
-- keep it for.
redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
