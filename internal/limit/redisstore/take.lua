-- One step of a mail: internal/limit/memstore says what it does, this does the same.
-- KEYS[1]: the transactions by the time when they end. KEYS[2]: a key that never exists.
-- While the slot of all keys moves to another node of a Cluster, some keys are here and
-- some are there. Because of the second key, no node runs the script meanwhile.
-- ARGV: the tag of all keys, the step (n a recipient is named, e the end, u and v undo
-- them, a adds without judging),
-- the time in milliseconds or 0 for the server's, how long a transaction is kept, the
-- transaction, the part, 1 to reserve or l to judge and leave nothing, a login that may be blocked, the most counters
-- of logins and of strangers; then eight for each counter: id, window, count, amount,
-- need, flags, member, what to keep it for. Flags: o once, d direct, m missing,
-- l lenient, s a set of members, g of logins.
-- It returns refused, repeat, blocked, since, until, and for each counter used, over,
-- wait and alarm.
local CELLS, HEAD, PER = 100, 10, 8
local tag, step, now, hold = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local txn, part, reserve, look, login = ARGV[5], ARGV[6], ARGV[7] == '1', ARGV[7] == 'l', ARGV[8]
local most = {g = tonumber(ARGV[9]), s = tonumber(ARGV[10])}
local call = redis.call
if now == 0 then
  local t = call('TIME')
  now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
local txnkey, queue = tag .. 'lt:' .. txn, KEYS[1]
local function int(n) return string.format('%.0f', n) end
local function has(flags, flag) return string.find(flags, flag, 1, true) ~= nil end

-- Transactions that have ended release what they have reserved. One that ends too far
-- in the future was made before a clock was set back.
local function forget(id)
  local all = call('HGETALL', tag .. 'lt:' .. id)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 1) == 'h' then
      local reserved = tonumber(string.match(all[i + 1], '^%d+'))
      local key = tag .. 'lc:' .. string.sub(all[i], 2)
      if reserved > 0 and call('EXISTS', key) == 1 then
        if call('HINCRBY', key, 'r', int(-reserved)) < 0 then call('HSET', key, 'r', '0') end
      end
    end
  end
  call('DEL', tag .. 'lt:' .. id)
  call('ZREM', queue, id)
end
local settled = false -- all transactions that have ended are forgotten
if step ~= 'a' then
  local ended = call('ZRANGEBYSCORE', queue, '-inf', int(now), 'LIMIT', 0, 16)
  for _, id in ipairs(ended) do forget(id) end
  settled = #ended < 16
  if #ended == 16 and txn ~= '' then
    local ends = call('ZSCORE', queue, txn)
    if ends and tonumber(ends) <= now then forget(txn) end
  end
  for _, id in ipairs(call('ZRANGEBYSCORE', queue, int(now + 2 * hold), '+inf', 'LIMIT', 0, 16)) do forget(id) end
end

if login ~= '' then
  local since, untl = string.match(call('HGET', tag .. 'lb', login) or '', '^(%d+) (%d+)$')
  if since and (untl == '0' or now < tonumber(untl)) then
    local answer = {1, 0, 1, tonumber(since), tonumber(untl)}
    for _ = 1, (#ARGV - HEAD) / PER * 4 do answer[#answer + 1] = 0 end
    return answer
  end
end

-- Counters.
local items = {}
for at = HEAD + 1, #ARGV, PER do
  local flags = ARGV[at + 5]
  items[#items + 1] = {
    id = ARGV[at], key = tag .. 'lc:' .. ARGV[at], window = tonumber(ARGV[at + 1]), count = tonumber(ARGV[at + 2]),
    amount = tonumber(ARGV[at + 3]), need = tonumber(ARGV[at + 4]), member = ARGV[at + 6], keep = ARGV[at + 7],
    once = has(flags, 'o'), direct = has(flags, 'd'), missing = has(flags, 'm'), lenient = has(flags, 'l'),
    set = has(flags, 's'), budget = has(flags, 'g') and 'g' or 's',
  }
end
if #items == 0 then return {0, 0, 0, 0, 0} end

local function cellsof(key)
  local cells, all = {}, call('HGETALL', key)
  for i = 1, #all, 2 do
    local at = tonumber(all[i])
    if at then cells[#cells + 1] = {at, tonumber(all[i + 1]), all[i]} end
  end
  table.sort(cells, function(a, b) return a[1] < b[1] end)
  return cells
end

local function bump(c, n)
  if n <= 0 then return end
  call('HINCRBY', c.key, int(c.at), int(n))
  if c.s == 0 then c.o = c.at end
  c.s, c.w, c.dirty = c.s + n, c.at, true
end

local function advance(c)
  if c.w > c.at then -- counted in the future, before a clock was set back
    local future = 0
    for _, cell in ipairs(cellsof(c.key)) do
      if cell[1] > c.at then
        future = future + cell[2]
        call('HDEL', c.key, cell[3])
      end
    end
    c.s, c.w, c.dirty = c.s - future, c.at, true
    if c.o > c.at then c.o = c.at end
    bump(c, future)
  end
  if c.s > 0 and c.o < c.at - CELLS then
    local fields, upto = {}, math.min(c.at - CELLS - 1, c.w)
    for i = c.o, upto do fields[#fields + 1] = int(i) end
    if #fields > 2 * CELLS then -- cannot be: count anew
      fields = {}
      for _, cell in ipairs(cellsof(c.key)) do
        if cell[1] <= upto then fields[#fields + 1] = cell[3] end
      end
    end
    if #fields > 0 then
      for _, n in ipairs(call('HMGET', c.key, unpack(fields))) do
        if n then c.s = c.s - tonumber(n) end
      end
      call('HDEL', c.key, unpack(fields))
    end
    c.o, c.dirty = c.at - CELLS, true
  end
end

local function members(c)
  local all = call('HGETALL', c.key)
  c.members, c.last = 0, {}
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 1) == 'm' then
      local last = tonumber(all[i + 1])
      if last > now then
        last = now
        call('HSET', c.key, all[i], int(now))
      end
      if now - last >= c.window then
        call('HDEL', c.key, all[i])
      else
        c.members = c.members + 1
        c.last[#c.last + 1] = {last, all[i]}
      end
    end
  end
  table.sort(c.last, function(a, b) return a[1] < b[1] end)
end

local function admit(c)
  local list = tag .. 'lz' .. c.budget
  call('ZADD', list, int(now), c.id)
  if call('ZCARD', list) <= most[c.budget] then return end
  local least, least_n
  for _, id in ipairs(call('ZRANGE', list, 0, 3)) do
    local v = call('HMGET', tag .. 'lc:' .. id, 's', 'r')
    local n = (tonumber(v[1]) or 0) + (tonumber(v[2]) or 0)
    if not least or n < least_n then
      if least then call('ZADD', list, int(now), least) end
      least, least_n = id, n
    else
      call('ZADD', list, int(now), id)
    end
  end
  call('ZREM', list, least)
  call('DEL', tag .. 'lc:' .. least)
end

local function load(c)
  local v = call('HMGET', c.key, 's', 'o', 'w', 'r', 'p', 'a', 'b', 'l')
  c.width = c.window / CELLS
  c.at = math.floor(now / c.width)
  c.s, c.o, c.w = tonumber(v[1]) or 0, tonumber(v[2]) or c.at, tonumber(v[3]) or 0
  c.r, c.p, c.a, c.b = tonumber(v[4]) or 0, tonumber(v[5]) or 0, tonumber(v[6]) or 0, tonumber(v[7]) or 0
  if c.a > now then c.a = 0 end
  if c.b > now then c.b = 0 end
  c.new = not v[8]
  -- Whatever has reserved in it has used it, and has ended: see goeson. What is still
  -- reserved was of transactions that the server has dropped, because its clock was set
  -- forward or because nothing was asked for a day.
  if c.r > 0 and settled and now - (tonumber(v[8]) or 0) >= hold then c.r, c.dirty = 0, true end
  advance(c)
  if c.set then members(c) end
end

local function save(c)
  if not c.dirty or look and c.new then return end
  if c.new then
    admit(c)
    c.new = false
  end
  call('HSET', c.key, 's', int(c.s), 'o', int(c.o), 'w', int(c.w), 'r', int(c.r), 'p', int(c.p), 'a', int(c.a), 'b', int(c.b), 'l', int(now))
  call('PEXPIRE', c.key, c.keep)
end

local function used(c)
  if c.set then return c.members end
  return c.s + c.r
end

local function sub(c, n)
  if n <= 0 or c.s <= 0 then return end
  local cells = cellsof(c.key)
  for i = #cells, 1, -1 do
    if n <= 0 then break end
    local taken = math.min(n, cells[i][2])
    n, c.s, c.dirty = n - taken, c.s - taken, true
    if taken == cells[i][2] then
      call('HDEL', c.key, cells[i][3])
    else
      call('HINCRBY', c.key, cells[i][3], int(-taken))
    end
  end
end

local function wait(c, n)
  if c.set then
    local over = c.members - c.count + 1
    local m = c.last[math.max(math.min(over, #c.last), 1)]
    return m and m[1] + c.window - now or 0
  end
  for _, cell in ipairs(cellsof(c.key)) do
    n = n - cell[2]
    if n <= 0 then return (cell[1] + CELLS + 1) * c.width - now end
  end
  return c.window
end

local function held(c)
  local reserved, counted, at = string.match(call('HGET', txnkey, 'h' .. c.id) or '', '^(%d+) (%d+) (%d+)$')
  return tonumber(reserved) or 0, tonumber(counted) or 0, tonumber(at) or 0
end

local function keepheld(c, reserved, counted, at)
  call('HSET', txnkey, 'h' .. c.id, int(reserved) .. ' ' .. int(counted) .. ' ' .. int(at))
end

for _, c in ipairs(items) do load(c) end

if step == 'a' then
  for _, c in ipairs(items) do
    bump(c, c.amount)
    c.p = math.max(c.p, used(c))
    save(c)
  end
  return 1
end

local naming = step == 'n' or step == 'u'
local function counted()
  if naming then return call('HEXISTS', txnkey, 'p' .. part) == 1 end
  return call('HEXISTS', txnkey, 'd') == 1
end

-- undo takes back a recipient, or the whole transaction.
local function undo()
  if not naming then
    local all = call('HGETALL', txnkey)
    local byid = {}
    for _, c in ipairs(items) do byid[c.id] = c end
    for i = 1, #all, 2 do
      if string.sub(all[i], 1, 1) == 'h' then
        local c = byid[string.sub(all[i], 2)]
        local reserved, n, at = string.match(all[i + 1], '^(%d+) (%d+) (%d+)$')
        if c and not c.set then
          if now - tonumber(at) < c.window then sub(c, tonumber(n)) end
          c.r, c.dirty = math.max(c.r - tonumber(reserved), 0), true
          call('HDEL', txnkey, all[i])
        end
      end
    end
    for _, c in ipairs(items) do save(c) end
    forget(txn)
    return
  end
  call('HDEL', txnkey, 'p' .. part)
  local left = call('HINCRBY', txnkey, 'n', -1)
  for _, c in ipairs(items) do
    if not c.set and not (c.once and left > 0) then
      if c.direct then
        sub(c, c.amount)
      else
        local reserved, n, at = held(c)
        local from_reserved = math.min(reserved, c.amount)
        local from_counted = math.min(n, c.amount - from_reserved)
        if now - at < c.window then sub(c, from_counted) end
        if from_reserved > 0 then c.r, c.dirty = math.max(c.r - from_reserved, 0), true end
        if reserved + n > 0 then keepheld(c, reserved - from_reserved, n - from_counted, at) end
      end
    end
    save(c)
  end
end

if step == 'u' or step == 'v' then
  if counted() then
    undo()
  else -- what has left its window is gone already
    for _, c in ipairs(items) do save(c) end
  end
  return 1
end

local uses, refused = {}, 0
local function answer(again)
  local out = {refused, again, 0, 0, 0}
  for i, c in ipairs(items) do
    local u = uses[i]
    out[#out + 1] = u and u.used or used(c)
    -- Only a lenient counter can be beyond its count when a request is repeated.
    out[#out + 1] = u and u.over or c.lenient and not c.missing and used(c) + c.need > c.count and 1 or 0
    out[#out + 1] = u and u.wait or 0
    out[#out + 1] = u and u.alarm or 0
  end
  return out
end

-- A transaction that goes on is kept, and uses its counters. It is forgotten by the queue.
-- The server must not drop it before that, because what it has reserved would stay.
local DAY = 24 * 3600 * 1000
local function goeson()
  if call('EXISTS', txnkey) == 1 then
    call('ZADD', queue, int(now + hold), txn)
    call('PEXPIRE', txnkey, int(DAY))
    for _, c in ipairs(items) do c.dirty = c.dirty or c.r > 0 end
  end
end

if counted() then
  if not look then goeson() end
  for _, c in ipairs(items) do save(c) end
  return answer(1)
end

local parts = tonumber(call('HGET', txnkey, 'n')) or 0
local function more(c, own)
  if c.missing then return math.max(parts - c.amount, 0) end
  if step == 'e' then return c.amount - own end
  if c.once and own > 0 then return 0 end
  return c.amount
end

for i, c in ipairs(items) do
  local u = {over = 0, wait = 0, alarm = 0, used = used(c)}
  if c.set then
    c.known = redis.call('HEXISTS', c.key, 'm' .. c.member) == 1
    if not c.known and u.used + 1 > c.count then u.over, u.wait = 1, wait(c, 1) end
  else
    if not c.direct and not c.missing then c.hr, c.hc, c.ht = held(c) else c.hr, c.hc, c.ht = 0, 0, 0 end
    c.more = more(c, c.hr + c.hc)
    local need = math.max(c.more, c.need)
    if need > 0 and u.used + need > c.count and not c.missing then u.over, u.wait = 1, wait(c, u.used + need - c.count) end
  end
  if u.over == 1 and not c.lenient then refused = 1 end
  uses[i] = u
end

local function alarm(c, over)
  local n, level = used(c), 0
  if over == 1 or n >= c.count then
    level = 100
  elseif n >= math.floor((c.count * 4 + 4) / 5) then
    level = 80
  else
    return 0
  end
  local last = level == 100 and c.b or c.a
  if last ~= 0 and now - last < c.window then return 0 end
  c.a, c.dirty = now, true
  if level == 100 then c.b = now end
  return level
end

if look then
  for _, c in ipairs(items) do save(c) end
  return answer(0)
end

if refused == 1 then
  for i, c in ipairs(items) do uses[i].alarm = alarm(c, uses[i].over) end
  if step == 'e' then
    undo()
  else
    goeson()
    for _, c in ipairs(items) do save(c) end
  end
  return answer(0)
end

for i, c in ipairs(items) do
  c.dirty = true
  if c.set then
    if not c.known then
      c.members = c.members + 1
      if c.members > 501 then call('HDEL', c.key, c.last[1][2]) end
    end
    call('HSET', c.key, 'm' .. c.member, int(now))
  elseif c.missing or c.direct then
    bump(c, c.more)
  elseif step == 'e' then
    c.r = math.max(c.r - c.hr, 0)
    local n = c.amount - c.hc
    if n > 0 then bump(c, n) else sub(c, -n) end
    keepheld(c, 0, c.amount, now)
  elseif c.more > 0 then
    if reserve then
      c.r = c.r + c.more
      keepheld(c, c.hr + c.more, c.hc, c.ht)
    else
      bump(c, c.more)
      keepheld(c, c.hr, c.hc + c.more, now)
    end
  end
  uses[i].used = used(c)
  c.p = math.max(c.p, uses[i].used)
  uses[i].alarm = alarm(c, uses[i].over)
  save(c)
end
if step == 'e' then
  call('HSET', txnkey, 'd', '1')
else
  call('HSET', txnkey, 'p' .. part, '1')
  call('HINCRBY', txnkey, 'n', 1)
end
goeson()
return answer(0)
