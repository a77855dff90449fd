-- The index of a file cache: every operation of redgrease-cache-rules' protocol.rs as one atomic step. The rules are those
-- of its index.rs, function by function; a test runs both on random operations and compares the replies.
--
-- Each operation is sent as a separate script: the statements outside functions, the functions that it needs, its own
-- body (script.rs extracts them; creating functions that are not called would cost more than everything else).
--
-- KEYS: the nine keys below, all in one slot. ARGV: cache, operation, its arguments. Reply: {code, doomed, ...} where
-- doomed is a flat list of keys and packed entries; or, in the most frequent cases, only the entry that is returned or stored,
-- or only the fence of what is granted. Numbers are packed as 8 bytes, big endian; times are microseconds.
local call, pack, unpack_ = redis.call, struct.pack, struct.unpack
local head, entries, used, ending = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local cache, op, key = ARGV[1], ARGV[2], ARGV[3]

local DONE, MISSING, HIT, BUSY, GRANTED, EXISTS, COMMITTED, LEASE_LOST, SESSION_LOST = 0, 1, 2, 3, 4, 5, 6, 7, 8
local TOO_LARGE, FULL, FLAGS, INFO, AUDITED, MORE, LOST, REBUILDING, FOREIGN, CHANGED, SEEN =
  9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19
local SLICE, WINDOW, PLACE, GRACE, MAX_PLACES = 64, 256, 2000000, 5000000, 1024

local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]
local gate
if op == 'acquire' or op == 'commit' then
  gate = call('HMGET', head, 'cache', 'builder', 'max_idle', 'bytes', 'reserved', 'fence', 'max_bytes', 'max_entries',
    'max_entry_bytes', 'max_age')
else
  gate = call('HMGET', head, 'cache', 'builder', 'max_idle')
end

-- The most frequent cases, without helpers: these return nil in any other case, before they change anything.
-- Times are passed to Redis as numbers: below 17 digits it stores them unchanged.
function fast.lookup()
  if gate[1] ~= cache or gate[2] or gate[3] ~= '0' then return end
  local packed = call('HGET', entries, key)
  if not packed then return end
  local expires = unpack_('>I8', packed, 25)
  if expires ~= 0 and expires <= now then return end
  if ARGV[4] ~= '' then
    local life = call('HGET', KEYS[8], ARGV[5])
    -- A session without a recent sign of life, and cases that look the same.
    if not life or unpack_('>I8', life) < now + math.floor(ARGV[6] / 8) * 7 then return end
    if call('HEXISTS', KEYS[7], key) == 1 then return end
    call('HSET', KEYS[7], key, ARGV[4] .. packed:sub(1, 8) .. pack('>I8', now))
  end
  -- A server that is out of memory refuses to record the use; existing content is returned.
  redis.pcall('ZADD', used, 'XX', now, key)
  return packed
end
-- No process waits: existing content is leased or refused; missing content is granted if there is space. The leases to
-- release were held by this process alone and still exist.
function fast.acquire()
  local writers, places, pins, sessions, garbage = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
  if #ARGV > 18 or gate[1] ~= cache or gate[2] or gate[3] ~= '0' or call('HEXISTS', places, key) == 1 then return end
  for i = 13, #ARGV, 2 do
    local k, pin = ARGV[i], call('HGET', pins, ARGV[i])
    if not pin or #pin ~= 32 or pin:sub(1, 16) ~= ARGV[i + 1] or call('HEXISTS', garbage, k) == 1
      or call('HEXISTS', writers, k) == 1 or call('HEXISTS', places, k) == 1 then
      return
    end
  end
  local token, hit, session, lease = ARGV[4], ARGV[8] == '1', ARGV[9], tonumber(ARGV[10])
  local packed = call('HGET', entries, key)
  if packed then
    local expires = unpack_('>I8', packed, 25)
    if (expires ~= 0 and expires <= now) or not (hit or ARGV[5] == 'create') then return end
    if hit and call('HEXISTS', pins, key) == 1 then return end
  elseif call('EXISTS', entries) == 0 or call('HEXISTS', writers, key) == 1 then
    return
  end
  local till, fence, reserve, reserved
  if not packed or hit then
    local life = call('HGET', sessions, session)
    till = life and unpack_('>I8', life) or 0
    if till <= now then return end
  end
  if not packed then
    local cap, largest = tonumber(gate[7]), tonumber(gate[9])
    reserve = tonumber(ARGV[6])
    fence, reserved = math.max(now, gate[6] + 1), gate[5] + reserve
    if gate[8] ~= '0' or (cap ~= 0 and gate[4] + reserved > cap) or (largest ~= 0 and reserve > largest) then return end
  end
  for i = 13, #ARGV, 2 do call('HDEL', pins, ARGV[i]) end
  if packed and not hit then return {EXISTS, {}} end
  -- A very recent sign of life is not recorded again.
  if till < now + math.floor(lease / 8) * 7 then call('HSET', sessions, session, pack('>I8', now + lease) .. ARGV[12]) end
  if packed then
    call('HSET', pins, key, token .. packed:sub(1, 8) .. pack('>I8', now))
    redis.pcall('ZADD', used, 'XX', now, key)
    return packed
  end
  call('HSET', head, 'fence', string.format('%.0f', fence), 'reserved', string.format('%.0f', reserved))
  call('HSET', writers, key, token .. pack('>I8I8I8', fence, reserve, now))
  return fence
end
-- The granted content arrives, it is new and does not expire, and there is space.
function fast.commit()
  local writers, packed = KEYS[5], ARGV[6]
  if ARGV[7] ~= '0' or ARGV[8] ~= '0' or gate[1] ~= cache or gate[2] or gate[3] ~= '0' then return end
  if gate[8] ~= '0' or gate[10] ~= '0' or call('HEXISTS', entries, key) == 1 then return end
  local writer = call('HGET', writers, key)
  if not writer or writer:sub(1, 16) ~= ARGV[4] then return end
  local fence, size, _, _, ttl = unpack_('>I8I8I8I8I8', packed)
  local granted, reserve = unpack_('>I8I8', writer, 17)
  local reserved, bytes, cap, largest = gate[5] - reserve, gate[4] + size, tonumber(gate[7]), tonumber(gate[9])
  if granted ~= fence or ttl ~= 0 or (cap ~= 0 and bytes + reserved > cap) or (largest ~= 0 and size > largest) then return end
  packed = packed:sub(1, 16) .. pack('>I8I8', now, 0) .. packed:sub(33, 40) .. '\0' .. packed:sub(42)
  call('HDEL', writers, key)
  redis.pcall('PUBLISH', head, key)
  call('HSET', head, 'reserved', string.format('%.0f', reserved), 'bytes', string.format('%.0f', bytes))
  call('HSET', entries, key, packed)
  call('ZADD', used, now, key)
  return packed
end

local writers, places, pins, sessions, garbage = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local doomed = {}

-- Not '-0', and never the exponents of tostring.
local function text(number) return number == 0 and '0' or string.format('%.0f', number) end
local function answer(code, ...) return {code, doomed, ...} end

-- The fields of the head: read once, written once.
local NUMBERS = {
  'bytes', 'reserved', 'garbage', 'fence', 'evicted', 'max_bytes', 'max_entries', 'max_entry_bytes', 'max_age', 'low_mark',
}
local numbers, changed
local function get(field)
  if not numbers then
    numbers, changed = {}, {}
    for i, number in ipairs(call('HMGET', head, unpack(NUMBERS))) do numbers[NUMBERS[i]] = tonumber(number) end
  end
  return numbers[field]
end
local function add(field, number)
  if number ~= 0 then
    local sum = get(field) + number
    numbers[field] = sum
    changed[field] = true
  end
end
local function write_numbers()
  local list = {}
  for field in pairs(changed or {}) do
    list[#list + 1] = field
    list[#list + 1] = text(numbers[field])
  end
  if #list > 0 then call('HSET', head, unpack(list)) end
end

if op ~= 'rebuild' then
  if not gate[1] then return answer(LOST) end
  if gate[1] ~= cache then return answer(FOREIGN, gate[1]) end
  if gate[2] and op ~= 'restore' and op ~= 'finish' and op ~= 'renew' and op ~= 'close' then return answer(REBUILDING) end
elseif gate[1] and gate[1] ~= cache and ARGV[9] ~= '1' then
  return answer(FOREIGN, gate[1])
end

local function entry_of(packed)
  local fence, size, created, expires, ttl, pinned = unpack_('>I8I8I8I8I8B', packed)
  return {fence = fence, size = size, created = created, expires = expires, ttl = ttl, pinned = pinned, rest = packed:sub(42)}
end
local function pack_entry(e)
  return pack('>I8I8I8I8I8B', e.fence, e.size, e.created, e.expires, e.ttl, e.pinned) .. e.rest
end

local lives = {}
local function is_alive(session)
  if lives[session] == nil then
    local life = call('HGET', sessions, session)
    lives[session] = life and unpack_('>I8', life) > now or false
  end
  return lives[session]
end
local function owner_of(record) return (call('HGET', sessions, record:sub(1, 8)) or ''):sub(9) end
local function ensure(session, lease, new, owner)
  local life = call('HGET', sessions, session)
  if life then
    if unpack_('>I8', life) <= now then return false end
  elseif new ~= '1' then
    return false
  end
  -- A very recent sign of life is not recorded again.
  if not life or unpack_('>I8', life) < now + math.floor(lease / 8) * 7 then
    call('HSET', sessions, session, pack('>I8', now + lease) .. owner)
  end
  lives[session] = true
  return true
end

-- Packed lists: records of one size, each beginning with a token of 16 bytes.
local function each(list, size)
  local at = 1 - size
  return function()
    at = at + size
    if list and at < #list then return list:sub(at, at + size - 1) end
  end
end
local function keep(hash, k, list, size, wanted)
  if not list then return nil end
  local kept = {}
  for record in each(list, size) do
    if wanted(record) then kept[#kept + 1] = record end
  end
  local new = table.concat(kept)
  if #new ~= #list then
    if new == '' then call('HDEL', hash, k) else call('HSET', hash, k, new) end
  end
  return new ~= '' and new or nil
end

local function has_reader(k, fence)
  for pin in each(call('HGET', pins, k), 32) do
    if (not fence or unpack_('>I8', pin, 17) == fence) and is_alive(pin:sub(1, 8)) then return true end
  end
  return false
end
-- The garbage of a key: a list of time, length and packed entry, oldest generation first.
local function garbage_of(k)
  local list, records, at = call('HGET', garbage, k), {}, 1
  while list and at <= #list do
    local time, length = unpack_('>I8I4', list, at)
    records[#records + 1] = {at = time, packed = list:sub(at + 12, at + 11 + length)}
    at = at + 12 + length
  end
  for _, record in ipairs(records) do record.fence, record.size = unpack_('>I8I8', record.packed) end
  return records
end
local function put_garbage(k, records)
  if #records == 0 then
    call('HDEL', garbage, k)
    return
  end
  local parts = {}
  for i, record in ipairs(records) do parts[i] = pack('>I8I4', record.at, #record.packed) .. record.packed end
  call('HSET', garbage, k, table.concat(parts))
end
local function is_known_garbage(k, fence)
  for _, record in ipairs(garbage_of(k)) do
    if record.fence == fence then return true end
  end
  return false
end
-- Requests that it is unlinked, oldest first, up to a file that has a reader.
local function doom(k, records)
  records = records or garbage_of(k)
  for _, record in ipairs(records) do
    if has_reader(k, record.fence) then break end
    record.at = now
    doomed[#doomed + 1] = k
    doomed[#doomed + 1] = record.packed
  end
  put_garbage(k, records)
end
local function with_garbage(k, e, packed, at)
  local records, place = garbage_of(k), 1
  while records[place] and records[place].fence < e.fence do place = place + 1 end
  table.insert(records, place, {at = at, packed = packed, fence = e.fence, size = e.size})
  return records
end
local function claim(k, packed)
  packed = packed or call('HGET', entries, k)
  if not packed then return end
  local e = entry_of(packed)
  call('HDEL', entries, k)
  call('ZREM', used, k)
  if e.expires ~= 0 then call('ZREM', ending, k) end
  add('bytes', -e.size)
  add('garbage', e.size)
  doom(k, with_garbage(k, e, packed, now))
end
-- A flat list of keys and fences from ARGV; their number is the argument at `first`.
local function forget(first)
  for i = first + 1, first + ARGV[first], 2 do
    local k, fence, kept = ARGV[i], tonumber(ARGV[i + 1]), {}
    local records = garbage_of(k)
    for _, record in ipairs(records) do
      if record.fence == fence then add('garbage', -record.size) else kept[#kept + 1] = record end
    end
    if #kept < #records then put_garbage(k, kept) end
  end
end

local function has_expired(k, e)
  if e.expires ~= 0 and e.expires <= now then return true end
  local idle = tonumber(gate[3])
  if idle == 0 then return false end
  local at = call('ZSCORE', used, k)
  return at and at + idle <= now or false
end
-- A server that evicts may have removed a whole part of the index.
local no_entries, no_order = false, false
local function look_for_damage()
  local n = call('HLEN', entries)
  if n == 0 and get('bytes') > 0 then no_entries = true end
  -- It may also be that all are pinned.
  if n > 0 and call('EXISTS', used) == 0 then no_order = true end
end
local function current(k)
  local packed = call('HGET', entries, k)
  if not packed then
    if call('EXISTS', entries) == 0 then look_for_damage() end
    return nil
  end
  local e = entry_of(packed)
  if has_expired(k, e) then
    claim(k, packed)
    add('evicted', 1)
    return nil
  end
  return packed, e
end
local function insert(k, e, at)
  local packed = pack_entry(e)
  add('bytes', e.size)
  call('HSET', entries, k, packed)
  call('ZADD', used, text(at), k)
  if e.expires ~= 0 then call('ZADD', ending, text(e.expires), k) end
  return packed
end
local function use_now(k) redis.pcall('ZADD', used, 'XX', text(now), k) end
local function life_end(ttl)
  local age = get('max_age')
  if ttl == 0 then ttl = age elseif age ~= 0 then ttl = math.min(ttl, age) end
  return ttl == 0 and 0 or now + ttl
end
local function add_pin(k, token, fence)
  local list = call('HGET', pins, k) or ''
  for pin in each(list, 32) do
    if pin:sub(1, 16) == token then return end
  end
  call('HSET', pins, k, list .. token .. pack('>I8I8', fence, now))
end

-- A writer that may not publish signals no waiters: they poll anyway.
local function wake(k) redis.pcall('PUBLISH', head, k) end
local function drop_writer(k, record)
  record = record or call('HGET', writers, k)
  if not record then return false end
  call('HDEL', writers, k)
  add('reserved', -unpack_('>I8', record, 25))
  wake(k)
  return true
end
local function drop_dead_writers()
  local all = call('HGETALL', writers)
  for i = 1, #all, 2 do
    if not is_alive(all[i + 1]:sub(1, 8)) then drop_writer(all[i], all[i + 1]) end
  end
end
local function prune_places(k, list)
  return keep(places, k, list or call('HGET', places, k), 24, function(p) return unpack_('>I8', p, 17) > now end)
end
local function leave(k, token)
  keep(places, k, call('HGET', places, k), 24, function(p) return p:sub(1, 16) ~= token end)
end
local function keep_place(k, token, wait)
  if wait ~= '1' then return end
  local mine, found, records = token .. pack('>I8', now + PLACE), false, {}
  for place in each(call('HGET', places, k), 24) do
    if place:sub(1, 16) == token then place, found = mine, true end
    records[#records + 1] = place
  end
  if not found and #records < MAX_PLACES then records[#records + 1] = mine end
  call('HSET', places, k, table.concat(records))
end

local function refuse_giant(bytes)
  local entry, cap = get('max_entry_bytes'), get('max_bytes')
  local limit = entry == 0 and cap or cap == 0 and entry or math.min(entry, cap)
  if limit > 0 and bytes > limit then return limit end
end
-- Whether this much more fits, after evicting the oldest if necessary; false comes with the bound.
local function free_space(bytes, count, kept)
  local max_bytes, max_entries, low = get('max_bytes'), get('max_entries'), get('low_mark')
  if max_bytes == 0 and max_entries == 0 then return true end
  local sum, n, w = get('bytes') + get('reserved'), 0, 0
  if max_entries ~= 0 then n, w = call('HLEN', entries), call('HLEN', writers) end
  local function within(b, e)
    return (max_bytes == 0 or sum + bytes <= b) and (max_entries == 0 or n + w + count <= e)
  end
  if within(max_bytes, max_entries) then return true end
  local function goal(bound, coming)
    local mark = math.floor(bound / 1000) * low + math.floor(bound % 1000 * low / 1000)
    return coming <= mark and mark or bound
  end
  local goal_bytes, goal_entries = goal(max_bytes, get('reserved') + bytes), goal(max_entries, w + count)
  local claimed = 0
  for _, k in ipairs(call('ZRANGE', used, 0, WINDOW - 1)) do
    if claimed == SLICE or within(goal_bytes, goal_entries) then break end
    if k ~= kept and not has_reader(k) then
      local packed = call('HGET', entries, k)
      if packed then
        sum, n = sum - entry_of(packed).size, n - 1
        claim(k, packed)
        claimed = claimed + 1
      else
        call('ZREM', used, k)
      end
    end
  end
  add('evicted', claimed)
  if not within(max_bytes, max_entries) then
    drop_dead_writers()
    sum = get('bytes') + get('reserved')
    if max_entries ~= 0 then w = call('HLEN', writers) end
  end
  if within(max_bytes, max_entries) then return true end
  if claimed == 0 then look_for_damage() end
  return false, max_bytes
end

local function absent(k)
  local writer = call('HGET', writers, k)
  if writer and is_alive(writer:sub(1, 8)) then return answer(BUSY, owner_of(writer)) end
  return answer(MISSING)
end

local function release_from(first)
  for i = first, #ARGV, 2 do
    local k, token = ARGV[i], ARGV[i + 1]
    leave(k, token)
    local writer = call('HGET', writers, k)
    if writer and writer:sub(1, 16) == token then drop_writer(k, writer) end
    local fence
    keep(pins, k, call('HGET', pins, k), 32, function(pin)
      if pin:sub(1, 16) ~= token then return true end
      fence = unpack_('>I8', pin, 17)
    end)
    if fence and is_known_garbage(k, fence) then doom(k) end
  end
end

function ops.open()
  if call('HGET', head, 'instance') == key then return answer(DONE) end
  return answer(CHANGED)
end

-- key, token ('' for none), session, lease, new, owner
function ops.lookup()
  local packed, e = current(key)
  if not packed then return absent(key) end
  if ARGV[4] ~= '' then
    if not ensure(ARGV[5], ARGV[6], ARGV[7], ARGV[8]) then return answer(SESSION_LOST) end
    add_pin(key, ARGV[4], e.fence)
  end
  use_now(key)
  return answer(HIT, packed)
end

function ops.peek()
  local packed = call('HGET', entries, key)
  if packed and not has_expired(key, entry_of(packed)) then return answer(SEEN, packed, call('ZSCORE', used, key) or '') end
  return absent(key)
end

-- key, token, mode, reserve, wait, hit, session, lease, new, owner, then pairs of key, token to release
function ops.acquire()
  release_from(13)
  local token, mode, reserve, wait, hit = ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8] == '1'
  local packed, e = current(key)
  if packed and (hit or mode == 'create') then
    leave(key, token)
    if not hit then return answer(EXISTS) end
    if not ensure(ARGV[9], ARGV[10], ARGV[11], ARGV[12]) then return answer(SESSION_LOST) end
    add_pin(key, token, e.fence)
    use_now(key)
    return answer(HIT, packed)
  end
  local limit = refuse_giant(reserve)
  if limit then return answer(TOO_LARGE, text(limit)) end
  if not ensure(ARGV[9], ARGV[10], ARGV[11], ARGV[12]) then return answer(SESSION_LOST) end
  local writer = call('HGET', writers, key)
  if writer then
    if writer:sub(1, 16) == token then return answer(GRANTED, text(unpack_('>I8', writer, 17)), '0') end
    if is_alive(writer:sub(1, 8)) then
      keep_place(key, token, wait)
      return answer(BUSY, owner_of(writer))
    end
    drop_writer(key, writer)
  end
  local after_dead = writer and '1' or '0'
  local queue = prune_places(key)
  if queue and queue:sub(1, 16) ~= token then
    keep_place(key, token, wait)
    return answer(BUSY, '')
  end
  local fits, bound = free_space(reserve, packed and 0 or 1)
  if not fits then return answer(FULL, text(bound)) end
  if queue then leave(key, token) end
  local fence = math.max(now, get('fence') + 1)
  add('fence', fence - get('fence'))
  add('reserved', reserve)
  call('HSET', writers, key, token .. pack('>I8I8I8', fence, reserve, now))
  return answer(GRANTED, text(fence), after_dead)
end

-- key, token, bytes
function ops.reserve()
  local token, bytes = ARGV[4], tonumber(ARGV[5])
  local writer = call('HGET', writers, key)
  if not writer or writer:sub(1, 16) ~= token then return answer(LEASE_LOST) end
  local limit = refuse_giant(bytes)
  if limit then return answer(TOO_LARGE, text(limit)) end
  local fence, reserved, since = unpack_('>I8I8I8', writer, 17)
  if bytes > reserved then
    local fits, bound = free_space(bytes - reserved, 0)
    if not fits then return answer(FULL, text(bound)) end
    if call('HEXISTS', writers, key) == 0 then return answer(LEASE_LOST) end
    call('HSET', writers, key, token .. pack('>I8I8I8', fence, bytes, since))
    add('reserved', bytes - reserved)
  end
  return answer(DONE)
end

-- key, token, mode, entry, pin, unlinked
function ops.commit()
  local token, mode, made = ARGV[4], ARGV[5], entry_of(ARGV[6])
  forget(8)
  local present = call('HGET', entries, key)
  if present and entry_of(present).fence == made.fence then
    if ARGV[7] == '1' then add_pin(key, token, made.fence) end
    return answer(COMMITTED, present)
  end
  local writer = call('HGET', writers, key)
  if not writer or writer:sub(1, 16) ~= token or unpack_('>I8', writer, 17) ~= made.fence then
    return answer(LEASE_LOST)
  end
  drop_writer(key, writer)
  local limit = refuse_giant(made.size)
  if limit then return answer(TOO_LARGE, text(limit)) end
  if present then
    local over = has_expired(key, entry_of(present))
    if not over and mode == 'create' then return answer(EXISTS) end
    claim(key, present)
    if over then add('evicted', 1) end
  end
  made.created, made.expires, made.pinned = now, life_end(made.ttl), 0
  local stored = insert(key, made, now)
  free_space(0, 0, key)
  if ARGV[7] == '1' then add_pin(key, token, made.fence) end
  return answer(COMMITTED, stored)
end

function ops.abort()
  leave(key, ARGV[4])
  local writer = call('HGET', writers, key)
  if writer and writer:sub(1, 16) == ARGV[4] then
    drop_writer(key, writer)
    return answer(DONE)
  end
  return answer(MISSING)
end

-- pairs of key, token
function ops.release()
  release_from(3)
  return answer(DONE)
end

-- key, fence ('' for any)
function ops.remove()
  local packed = call('HGET', entries, key)
  if not packed or (ARGV[4] ~= '' and entry_of(packed).fence ~= tonumber(ARGV[4])) then return answer(MISSING) end
  claim(key, packed)
  return answer(DONE)
end

-- key, ttl ('' keeps it)
function ops.touch()
  local packed, e = current(key)
  if not packed then return answer(MISSING) end
  use_now(key)
  if ARGV[4] ~= '' then
    if e.expires ~= 0 then call('ZREM', ending, key) end
    e.expires = life_end(tonumber(ARGV[4]))
    if e.expires ~= 0 then call('ZADD', ending, text(e.expires), key) end
    call('HSET', entries, key, pack_entry(e))
  end
  return answer(DONE)
end

-- key, pinned
function ops.pin()
  local packed, e = current(key)
  if not packed then return answer(MISSING) end
  local pinned = tonumber(ARGV[4])
  if e.pinned ~= pinned then
    e.pinned = pinned
    call('HSET', entries, key, pack_entry(e))
    if pinned == 1 then call('ZREM', used, key) else call('ZADD', used, text(now), key) end
  end
  return answer(DONE)
end

-- session, lease, owner, unlinked
function ops.renew()
  forget(6)
  if ensure(ARGV[3], ARGV[4], '0', ARGV[5]) then return answer(DONE) end
  return answer(SESSION_LOST)
end

function ops.close()
  call('HDEL', sessions, key)
  return answer(DONE)
end

-- 'bytes' | 'used' | 'all', number
function ops.evict()
  local choice, number = ARGV[3], tonumber(ARGV[4])
  look_for_damage()
  local candidates
  if choice == 'all' then
    candidates = call('HRANDFIELD', entries, SLICE)
  else
    candidates = call('ZRANGE', used, 0, WINDOW - 1)
  end
  local claimed = 0
  for _, k in ipairs(candidates) do
    if claimed == SLICE then break end
    if choice == 'bytes' and get('bytes') <= number then break end
    if choice == 'used' and tonumber(call('ZSCORE', used, k)) >= number then break end
    local packed = call('HGET', entries, k)
    if not packed then
      call('ZREM', used, k)
    elseif choice == 'all' or not has_reader(k) then
      claim(k, packed)
      claimed = claimed + 1
    end
  end
  add('evicted', claimed)
  return answer(claimed == SLICE and MORE or DONE)
end

function ops.sweep()
  local more = false
  look_for_damage()
  local all = call('HGETALL', sessions)
  for i = 1, #all, 2 do
    if unpack_('>I8', all[i + 1]) <= now then call('HDEL', sessions, all[i]) end
  end
  drop_dead_writers()
  all = call('HGETALL', places)
  for i = 1, #all, 2 do prune_places(all[i], all[i + 1]) end
  all = call('HGETALL', pins)
  for i = 1, #all, 2 do
    keep(pins, all[i], all[i + 1], 32, function(pin) return is_alive(pin:sub(1, 8)) end)
  end
  local over = call('ZRANGEBYSCORE', ending, '-inf', text(now), 'LIMIT', 0, SLICE)
  more = #over == SLICE
  local idle = tonumber(gate[3])
  if idle > 0 then
    local unused = call('ZRANGEBYSCORE', used, '-inf', text(now - idle), 'LIMIT', 0, SLICE)
    more = more or #unused == SLICE
    for _, k in ipairs(unused) do over[#over + 1] = k end
  end
  for _, k in ipairs(over) do
    local packed = call('HGET', entries, k)
    if packed then
      claim(k, packed)
      add('evicted', 1)
    else
      call('ZREM', used, k)
      call('ZREM', ending, k)
    end
  end
  local before = #doomed
  free_space(0, 0)
  more = more or #doomed - before == 2 * SLICE
  local left, cursor, some = 0, '0', #doomed > before
  repeat
    local page = call('HSCAN', garbage, cursor, 'COUNT', 256)
    cursor = page[1]
    for i = 1, #page[2], 2 do
      local k, is_left = page[2][i], false
      local records = garbage_of(k)
      -- Garbage with readers would only delay the rest.
      local can_go = records[1] and not has_reader(k, records[1].fence)
      for _, record in ipairs(records) do is_left = is_left or record.at + GRACE <= now end
      if left < SLICE and is_left and can_go then
        left = left + 1
        doom(k, records)
      end
    end
  until cursor == '0' or left == SLICE
  return answer((more or (left == SLICE and some)) and MORE or DONE)
end

-- triples of key, fence, digest
function ops.judge()
  local flags = {}
  for i = 3, #ARGV, 3 do
    local k, fence, digest, flag = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], '1'
    local packed = call('HGET', entries, k)
    if packed and entry_of(packed).fence == fence and packed:sub(42, 57) == digest then
      flag = '0'
    elseif is_known_garbage(k, fence) then
      flag = '0'
    else
      local writer = call('HGET', writers, k)
      if writer and unpack_('>I8', writer, 17) == fence then
        if is_alive(writer:sub(1, 8)) then flag = '0' else drop_writer(k, writer) end
      end
    end
    flags[#flags + 1] = flag
  end
  return answer(FLAGS, table.concat(flags))
end

function ops.alive()
  local flags = {}
  for i = 3, #ARGV do flags[#flags + 1] = is_alive(ARGV[i]) and '1' or '0' end
  return answer(FLAGS, table.concat(flags))
end

function ops.unlock()
  call('HDEL', places, key)
  return answer(drop_writer(key) and DONE or MISSING)
end

local function bounds()
  return {'max_bytes', 'max_entries', 'max_entry_bytes', 'max_age', 'max_idle', 'min_free_bytes', 'low_mark'}
end
local function set_bounds(first)
  for i, field in ipairs(bounds()) do call('HSET', head, field, ARGV[first + i - 1]) end
end

function ops.configure()
  set_bounds(3)
  return answer(DONE)
end

function ops.info()
  local list = call('HMGET', head, unpack(bounds()))
  list[8], list[9] = text(now), text(call('HLEN', entries))
  for i, field in ipairs({'bytes', 'reserved', 'garbage'}) do list[9 + i] = text(get(field)) end
  for i, hash in ipairs({sessions, writers, pins}) do list[12 + i] = text(call('HLEN', hash)) end
  list[16], list[17] = text(get('evicted')), text(get('fence'))
  return answer(INFO, list)
end

local function audit(repair)
  local bytes, reserved, waste, strays, dead = 0, 0, 0, 0, 0
  local all = call('HGETALL', entries)
  for i = 1, #all, 2 do
    local e = entry_of(all[i + 1])
    bytes = bytes + e.size
    local at = call('ZSCORE', used, all[i])
    if (at and 1 or 0) == e.pinned then
      strays = strays + 1
      if repair then
        if at then call('ZREM', used, all[i]) else call('ZADD', used, text(now), all[i]) end
      end
    end
    local ends = call('ZSCORE', ending, all[i])
    if (ends and tonumber(ends) or 0) ~= e.expires then
      strays = strays + 1
      if repair then
        if e.expires ~= 0 then call('ZADD', ending, text(e.expires), all[i]) else call('ZREM', ending, all[i]) end
      end
    end
  end
  for _, order in ipairs({used, ending}) do
    for _, k in ipairs(call('ZRANGE', order, 0, -1)) do
      if call('HEXISTS', entries, k) == 0 then
        strays = strays + 1
        if repair then call('ZREM', order, k) end
      end
    end
  end
  all = call('HGETALL', writers)
  for i = 1, #all, 2 do
    reserved = reserved + unpack_('>I8', all[i + 1], 25)
    if not is_alive(all[i + 1]:sub(1, 8)) then dead = dead + 1 end
  end
  all = call('HGETALL', pins)
  for i = 1, #all, 2 do
    for pin in each(all[i + 1], 32) do
      if not is_alive(pin:sub(1, 8)) then dead = dead + 1 end
    end
  end
  all = call('HGETALL', garbage)
  for i = 1, #all, 2 do
    for _, record in ipairs(garbage_of(all[i])) do waste = waste + record.size end
  end
  local found = {
    text(get('bytes')), text(bytes), text(get('reserved')), text(reserved), text(get('garbage')), text(waste),
    text(strays), text(dead),
  }
  if repair then
    add('bytes', bytes - get('bytes'))
    add('reserved', reserved - get('reserved'))
    add('garbage', waste - get('garbage'))
  end
  return found
end
-- If anything was evicted: as after a restart, the directory is scanned, and no file is judged before.
local function after_damage(given)
  if not no_entries and not no_order then return given end
  local strays = tonumber(audit(true)[7])
  if not no_entries and strays == 0 then return given end
  call('HSET', head, 'instance', '')
  return answer(CHANGED)
end

function ops.audit()
  return answer(AUDITED, audit(key == '1'))
end

-- session, lease, new, owner, instance, (unused), wipe, bounds...
function ops.rebuild()
  local session, instance = ARGV[3], ARGV[7]
  if ARGV[9] == '1' then call('DEL', unpack(KEYS)) end
  local h = call('HMGET', head, 'cache', 'builder', 'instance')
  if h[1] and not h[2] and h[3] == instance then return answer(DONE) end
  if h[2] and h[2] ~= session and is_alive(h[2]) then return answer(REBUILDING) end
  -- Without a head the rest is meaningless.
  if not h[1] then call('DEL', unpack(KEYS)) end
  if not ensure(session, ARGV[4], ARGV[5], ARGV[6]) then return answer(SESSION_LOST) end
  if not h[1] then
    call('HSET', head, 'cache', cache, 'instance', '', 'bytes', 0, 'reserved', 0, 'garbage', 0, 'fence', text(now), 'evicted', 0)
    set_bounds(10)
  end
  call('HSET', head, 'builder', session)
  if h[1] then return answer(CHANGED) end
  return answer(GRANTED, text(now), '0')
end

-- session, then triples of key, entry, used
function ops.restore()
  if gate[2] ~= key then return answer(LEASE_LOST) end
  local highest = get('fence')
  for i = 4, #ARGV, 3 do
    local k, e, at = ARGV[i], entry_of(ARGV[i + 1]), tonumber(ARGV[i + 2])
    highest = math.max(highest, e.fence)
    local age = get('max_age')
    if age > 0 then e.expires = e.expires == 0 and e.created + age or math.min(e.expires, e.created + age) end
    local present = call('HGET', entries, k)
    local newest = present and entry_of(present).fence
    if newest ~= e.fence and not is_known_garbage(k, e.fence) then
      if (newest and newest > e.fence) or (e.expires ~= 0 and e.expires <= now) then
        add('garbage', e.size)
        put_garbage(k, with_garbage(k, e, pack_entry(e), 0))
      else
        claim(k, present)
        insert(k, e, math.min(at, now))
      end
    end
  end
  add('fence', highest - get('fence'))
  return answer(DONE)
end

function ops.finish()
  if gate[2] ~= key then return answer(LEASE_LOST) end
  call('HDEL', head, 'builder')
  call('HSET', head, 'instance', ARGV[4])
  return answer(DONE)
end
