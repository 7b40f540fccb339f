#!lua
-- The steps of the Redis ledger, each atomic. They keep the rules of rules.py; tests/serve/budget/ledger/test_contract.py
-- compares the two.
--
-- KEYS[1]: the prefix of all keys, with a hash tag, so that a cluster keeps them in one slot.
-- ARGV[1]: the step. ARGV[2]: its arguments in JSON; amounts are texts, because cjson rounds long numbers when it writes.
--
-- The answer is a list. Its first value is "ok", "calendar" (the client must send the day of a zone at a time), or the
-- name of a refusal. After "ok" come the epoch and the counter of writes, then the result of the step.

local step, args, prefix = ARGV[1], cjson.decode(ARGV[2]), KEYS[1]
local META, SUMS, DAYS = prefix .. ':meta', prefix .. ':sums', prefix .. ':days'
local RESERVATIONS, EXPIRY = prefix .. ':reservations', prefix .. ':expiry'
local TOMBSTONES, TOMBSTONE_TIMES = prefix .. ':tombstones', prefix .. ':tombstone-times'
local GREATEST = 9007199254740991 -- 2^53 - 1, the largest integer that Lua's numbers count exactly
local SEPARATOR = '\0'

local function text(number) return string.format('%.0f', number) end
local function given(value) return value ~= nil and value ~= cjson.null and value or nil end
local function refuse(...) error({ answer = { ... } }) end
local function sum(one, other)
  if one + other > GREATEST then refuse('too-large') end
  return one + other
end

local time = given(args.time)
if not time then
  local clock = redis.call('TIME')
  time = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
end

-- Rows

local meta = redis.call('HMGET', META, 'epoch', 'counter', 'zone', 'next', 'after')
local epoch, counter, stored_zone, stored_next = meta[1], tonumber(meta[2] or '0'), meta[3], meta[4]
local stored_after = tonumber(meta[5] or '')

local function write_zoning(zone, next, after)
  redis.call('HSET', META, 'zone', zone)
  if next then redis.call('HSET', META, 'next', next) else redis.call('HDEL', META, 'next') end
  if after then redis.call('HSET', META, 'after', text(after)) else redis.call('HDEL', META, 'after') end
end

-- A day is {ordinal, spent, forgiven, reserved, warned}.
local function find_day(day)
  local packed = redis.call('HGET', SUMS, text(day))
  if not packed then return nil end
  local row = cmsgpack.unpack(packed)
  return { day = day, spent = row[1], forgiven = row[2], reserved = row[3], warned = row[4] }
end
local function row_of(day)
  return find_day(day) or { day = day, spent = 0, forgiven = 0, reserved = 0, warned = false }
end
local function put_day(row)
  redis.call('HSET', SUMS, text(row.day), cmsgpack.pack({ row.spent, row.forgiven, row.reserved, row.warned }))
  redis.call('ZADD', DAYS, row.day, text(row.day))
end
local function newest()
  local found = redis.call('ZREVRANGE', DAYS, 0, 0)[1]
  return found and find_day(tonumber(found))
end

-- The sums of the clients on a day: the name of a client key to {spent, forgiven, reserved}.
local function clients_key(day) return prefix .. ':clients:' .. text(day) end
local function find_client(day, client)
  local packed = client ~= '' and redis.call('HGET', clients_key(day), client)
  local sums = packed and cmsgpack.unpack(packed) or { 0, 0, 0 }
  return { spent = sums[1], forgiven = sums[2], reserved = sums[3] }
end
local function put_client(day, client, sums)
  redis.call('HSET', clients_key(day), client, cmsgpack.pack({ sums.spent, sums.forgiven, sums.reserved }))
end
local function change_client(day, client, spent, forgiven, reserved)
  local sums = find_client(day, client)
  if client ~= '' then
    sums.spent, sums.forgiven, sums.reserved = sums.spent + spent, sums.forgiven + forgiven, sums.reserved + reserved
    put_client(day, client, sums)
  end
  return sums
end

-- A reservation is {day, amount, expires, owner, dispatched, model, backend, client}.
local function unpack_reservation(id, packed)
  local row = cmsgpack.unpack(packed)
  return { id = id, day = row[1], amount = row[2], expires = row[3], owner = row[4], dispatched = row[5],
    model = row[6], backend = row[7], client = row[8] or '' }
end
local function find_reservation(id)
  local packed = redis.call('HGET', RESERVATIONS, id)
  return packed and unpack_reservation(id, packed)
end
local function owner_key(owner) return prefix .. ':owner:' .. owner end
local function put_reservation(row)
  redis.call('HSET', RESERVATIONS, row.id,
    cmsgpack.pack({ row.day, row.amount, row.expires, row.owner, row.dispatched, row.model, row.backend,
      row.client }))
  redis.call('ZADD', EXPIRY, row.expires, row.id)
  redis.call('SADD', owner_key(row.owner), row.id)
end
local function drop_reservation(row)
  redis.call('HDEL', RESERVATIONS, row.id)
  redis.call('ZREM', EXPIRY, row.id)
  redis.call('SREM', owner_key(row.owner), row.id)
end
local function expired()
  local rows = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', EXPIRY, '-inf', text(time))) do
    rows[#rows + 1] = find_reservation(id)
  end
  return rows
end

-- A tombstone is {day, amount, charged, forgiven, model, backend, client}.
local function find_tombstone(id)
  local packed = redis.call('HGET', TOMBSTONES, id)
  if not packed then return nil end
  local row = cmsgpack.unpack(packed)
  return { id = id, day = row[1], amount = row[2], charged = row[3], forgiven = row[4], model = row[5], backend = row[6],
    client = row[7] or '' }
end
local function put_tombstone(row)
  redis.call('HSET', TOMBSTONES, row.id,
    cmsgpack.pack({ row.day, row.amount, row.charged, row.forgiven, row.model, row.backend, row.client }))
end
local function drop_tombstone(id)
  redis.call('HDEL', TOMBSTONES, id)
  redis.call('ZREM', TOMBSTONE_TIMES, id)
end
local function all_tombstones()
  local rows = {}
  for _, id in ipairs(redis.call('HKEYS', TOMBSTONES)) do rows[#rows + 1] = find_tombstone(id) end
  return rows
end

-- The history of a day: "model NUL backend", with "NUL client" behind it where there is one, to {requests, input tokens, output tokens, cost}.
local function history_key(day) return prefix .. ':history:' .. text(day) end
local function add_line(day, field, counts)
  local key = history_key(day)
  local packed = redis.call('HGET', key, field)
  local row = packed and cmsgpack.unpack(packed) or { 0, 0, 0, 0 }
  for i = 1, 4 do row[i] = row[i] + counts[i] end
  redis.call('HSET', key, field, cmsgpack.pack(row))
end
local function add_history(day, model, backend, client, counts)
  add_line(day, model .. SEPARATOR .. backend .. (client ~= '' and SEPARATOR .. client or ''), counts)
end

-- The ledger's calendar

local function day_in(zone)
  for _, each in ipairs(args.calendar[zone] or {}) do
    if each[2] <= time and time < each[3] then return each[1] end
  end
  refuse('calendar', zone, text(time))
end

local function calendar_now()
  local zone, next = stored_zone or args.zone, stored_next or nil
  local day = day_in(zone)
  if next and stored_after and day > stored_after then
    zone, next = next, nil
    day = day_in(zone)
  end
  return { day = day, zone = zone, next = next, earliest = stored_after, kept = stored_zone and true or false }
end
local function require_zone(now)
  if args.zone ~= now.zone and args.zone ~= now.next then refuse('other-zone', now.zone) end
end
local function keep_zone(now)
  if not now.kept then write_zoning(now.zone, nil, nil) end
end
local function current(now)
  local day = now.earliest and math.max(now.day, now.earliest) or now.day
  local last = newest()
  return last and last.day >= day and last or row_of(day)
end
local function is_ahead(row, now) return row.day > now.day + 1 end
local function status(row, now, sums)
  return text(row.day), text(row.spent - row.forgiven), text(row.reserved), row.warned and 1 or 0,
    is_ahead(row, now) and 1 or 0, now.zone, now.next or '', text(sums.spent - sums.forgiven), text(sums.reserved)
end

local function expire(row, stored)
  row.reserved = row.reserved - stored.amount
  if stored.dispatched then row.spent = sum(row.spent, stored.amount) end
  return row
end
local function sweep()
  local rows = expired()
  for _, stored in ipairs(rows) do
    local charged = stored.dispatched and stored.amount or 0
    local day = expire(row_of(stored.day), stored)
    if stored.dispatched then add_history(stored.day, stored.model, stored.backend, stored.client, { 1, 0, 0, charged }) end
    put_tombstone({ id = stored.id, day = stored.day, amount = stored.amount, charged = charged, forgiven = false,
      model = stored.model, backend = stored.backend, client = stored.client })
    redis.call('ZADD', TOMBSTONE_TIMES, text(time), stored.id)
    drop_reservation(stored)
    put_day(day)
    change_client(stored.day, stored.client, charged, 0, -stored.amount)
  end
  if #rows > 0 then
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', TOMBSTONE_TIMES, '-inf', '(' .. text(time - args.remembered))) do
      drop_tombstone(id)
    end
  end
end

local function settle(id, cost, tokens_in, tokens_out, requests)
  local stored = find_reservation(id)
  if stored then
    local row = row_of(stored.day)
    row.spent, row.reserved = sum(row.spent, cost), row.reserved - stored.amount
    add_history(stored.day, stored.model, stored.backend, stored.client, { requests, tokens_in, tokens_out, cost })
    drop_reservation(stored)
    put_day(row)
    return row, stored.amount, false, change_client(stored.day, stored.client, cost, 0, -stored.amount)
  end
  local tombstone = find_tombstone(id)
  if not tombstone then return nil end
  local row = row_of(tombstone.day)
  local change = cost - tombstone.charged
  row.spent = sum(row.spent, change)
  local pardon = tombstone.forgiven and math.min(change, 0) or 0
  row.forgiven = row.forgiven + pardon
  if tombstone.charged > 0 then requests = requests - 1 end
  add_history(tombstone.day, tombstone.model, tombstone.backend, tombstone.client,
    { requests, tokens_in, tokens_out, change })
  drop_tombstone(id)
  put_day(row)
  return row, tombstone.amount, true, change_client(tombstone.day, tombstone.client, change, pardon, 0)
end

-- Steps: each returns the values of its answer. Those of READS change no sums.

local READS = { status = true, history = true }
local steps = {}

function steps.status()
  local now = calendar_now()
  require_zone(now)
  local row = current(now)
  local sums = find_client(row.day, args.client)
  for _, stored in ipairs(expired()) do
    if stored.day == row.day then
      row = expire(row, stored)
      if stored.client == args.client then
        sums.spent = sums.spent + (stored.dispatched and stored.amount or 0)
        sums.reserved = sums.reserved - stored.amount
      end
    end
  end
  return { status(row, now, sums) }
end

function steps.reserve()
  local now = calendar_now()
  require_zone(now)
  local row = current(now)
  if is_ahead(row, now) then refuse('ahead', text(row.day), text(now.day)) end
  if find_reservation(args.id) then return { 1, status(row, now, find_client(row.day, args.client)) } end -- the answer to the first request was lost
  keep_zone(now)
  sweep()
  row = current(now)
  local amount, limit, client_limit = tonumber(args.amount), tonumber(args.limit), given(args.client_limit)
  local sums = find_client(row.day, args.client)
  local fits_client = not client_limit or sums.spent - sums.forgiven + sums.reserved + amount <= tonumber(client_limit)
  if row.spent - row.forgiven + row.reserved + amount > limit or not fits_client then
    return { 0, status(row, now, sums) }
  end
  row.reserved = sum(row.reserved, amount)
  put_reservation({ id = args.id, day = row.day, amount = amount, expires = time + args.lease, owner = args.owner,
    dispatched = args.dispatched, model = args.model, backend = args.backend, client = args.client })
  put_day(row)
  return { 1, status(row, now, change_client(row.day, args.client, 0, 0, amount)) }
end

function steps.dispatch()
  local stored = find_reservation(args.id)
  if not stored or stored.expires <= time then return { 0 } end
  stored.dispatched, stored.expires = true, time + args.lease
  put_reservation(stored)
  return { 1 }
end

function steps.renew()
  for _, id in ipairs(redis.call('SMEMBERS', owner_key(args.owner))) do
    local stored = find_reservation(id)
    stored.expires = time + args.lease
    put_reservation(stored)
  end
  return {}
end

function steps.settle()
  local now = calendar_now()
  local row, amount, late, sums = settle(args.id, tonumber(args.cost), args.input_tokens, args.output_tokens, args.requests)
  if not row then return { 0 } end
  return { 1, text(amount), late and 1 or 0, status(row, now, sums) }
end

function steps.record()
  local now = calendar_now()
  local row = current(now)
  row.spent = sum(row.spent, tonumber(args.cost))
  keep_zone(now)
  local counts = { 1, args.input_tokens, args.output_tokens, tonumber(args.cost) }
  add_history(row.day, args.model, args.backend, args.client, counts)
  put_day(row)
  return { status(row, now, change_client(row.day, args.client, tonumber(args.cost), 0, 0)) }
end

function steps.warn()
  local row = row_of(args.day)
  if row.warned then return { 0 } end
  row.warned = true
  put_day(row)
  return { 1 }
end

function steps.history()
  local rows = {}
  for _, day in ipairs(redis.call('ZRANGEBYSCORE', DAYS, text(args.since), '+inf')) do
    local fields = redis.call('HGETALL', history_key(tonumber(day)))
    for i = 1, #fields, 2 do
      local counts = cmsgpack.unpack(fields[i + 1])
      rows[#rows + 1] = { day, fields[i], text(counts[1]), text(counts[2]), text(counts[3]), text(counts[4]) }
    end
  end
  return { rows }
end

local function move(from, to)
  for _, id in ipairs(redis.call('HKEYS', RESERVATIONS)) do
    local stored = find_reservation(id)
    if stored.day == from then
      stored.day = to
      put_reservation(stored)
    end
  end
  for _, row in ipairs(all_tombstones()) do
    if row.day == from then
      row.day = to
      put_tombstone(row)
    end
  end
  local fields = redis.call('HGETALL', history_key(from))
  for i = 1, #fields, 2 do add_line(to, fields[i], cmsgpack.unpack(fields[i + 1])) end
  redis.call('DEL', history_key(from))
  for _, client in ipairs(redis.call('HKEYS', clients_key(from))) do
    local sums = find_client(from, client)
    change_client(to, client, sums.spent, 0, sums.reserved)
  end
  redis.call('DEL', clients_key(from))
  redis.call('HDEL', SUMS, text(from))
  redis.call('ZREM', DAYS, text(from))
end

function steps.reset()
  local now = calendar_now()
  require_zone(now)
  sweep()
  local row, moved = row_of(now.day), {}
  local forgiven = row.spent - row.forgiven
  for _, day in ipairs(redis.call('ZRANGEBYSCORE', DAYS, '(' .. text(now.day), '+inf')) do
    local later = find_day(tonumber(day))
    moved[#moved + 1] = day
    row.spent, row.reserved = sum(row.spent, later.spent), sum(row.reserved, later.reserved)
    forgiven = forgiven + later.spent - later.forgiven
  end
  for _, day in ipairs(moved) do move(tonumber(day), now.day) end
  for _, client in ipairs(redis.call('HKEYS', clients_key(now.day))) do
    local sums = find_client(now.day, client)
    sums.forgiven = sums.spent
    put_client(now.day, client, sums)
  end
  for _, tombstone in ipairs(all_tombstones()) do
    if tombstone.day == now.day then
      tombstone.forgiven = true
      put_tombstone(tombstone)
    end
  end
  for _, id in ipairs(redis.call('HKEYS', RESERVATIONS)) do
    local stored = find_reservation(id)
    if stored.expires > time + args.lease then
      stored.expires = time + args.lease
      put_reservation(stored)
    end
  end
  row.forgiven, row.warned = row.spent, false
  put_day(row)
  write_zoning(now.zone, now.next, now.earliest and math.min(now.earliest, now.day))
  return { text(now.day), text(forgiven), moved }
end

function steps.rezone()
  local now = calendar_now()
  if not newest() and not now.earliest then
    write_zoning(args.new_zone, nil, nil)
    return { args.new_zone, '', now.zone }
  end
  local row = current(now)
  local changed = args.new_zone ~= now.zone and args.new_zone or nil
  if changed and is_ahead(row, now) then refuse('ahead', text(row.day), text(now.day)) end
  write_zoning(now.zone, changed, (changed or now.earliest) and row.day or nil)
  return { now.zone, changed or '', now.next or now.zone }
end

-- One step, after the checks that this is the ledger that the client knows

local function run()
  local repairs = step == 'reset'
  if not repairs then
    if not epoch and args.epoch ~= '' then refuse('lost') end
    if epoch and args.epoch ~= '' and args.epoch ~= epoch then refuse('replaced') end
    if epoch and args.epoch == epoch and counter < args.counter then refuse('rolled-back') end
  end
  local function begin()
    epoch = args.new_epoch
    redis.call('HSET', META, 'epoch', epoch, 'version', '1')
  end
  if READS[step] then
    local result = steps[step]()
    -- A gateway asks for the status when it starts. So it knows the ledger before its first paid request.
    if not epoch then begin() end
    return { 'ok', epoch, text(counter), unpack(result) }
  end
  if epoch then
    for _, id in ipairs(args.release) do settle(id, 0, 0, 0, 0) end
  end
  local result = steps[step]()
  if not epoch then begin() end
  -- A repair passes all counters that clients may remember.
  counter = redis.call('HINCRBY', META, 'counter', repairs and 1000000000 or 1)
  return { 'ok', epoch, text(counter), unpack(result) }
end

local worked, result = pcall(run)
if worked then return result end
if type(result) == 'table' and result.answer then return result.answer end
return redis.error_reply('ERR step ' .. step .. ': ' .. tostring(type(result) == 'table' and result.err or result))
