-- Writes, as the scripts of the stores do. KEYS: a key for this, the generation, the stamp of
-- the client, and a key that never exists: while the slot moves to another node of a Cluster,
-- no node runs the script because of it. ARGV: what to keep the first and the stamp for, in
-- milliseconds, and a new generation. It returns the generation, the stamp that was there, 0
-- for none, and the new one, which is never less: a clock that is set back is no loss.
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
local generation = redis.call('GET', KEYS[2])
if not generation then
  generation = ARGV[3]
  redis.call('SET', KEYS[2], generation)
end
local found = tonumber(redis.call('GET', KEYS[3])) or 0
local stamp = math.max(found, tonumber(redis.call('TIME')[1]))
redis.call('SET', KEYS[3], string.format('%.0f', stamp), 'PX', ARGV[2])
return {generation, found, stamp}
