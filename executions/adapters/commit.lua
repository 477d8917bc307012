-- Compare and store: the whole of an execution's change, or nothing. Knows no states and decodes no JSON.
-- KEYS: record, state, feed, epoch, fence, operation, index...
-- ARGV: task id, version, digest, epoch ("*": any, "": there must be none), fence ("": none), mode (write | remember |
--       forget | prune), state document, feed entry, operation's answer, operation's seconds to live (0: none),
--       key prefix, task type, since when it could be launched ("": it could not), score as a holder of a slot ("": it
--       is none), launcher of a launch to be admitted ("": none is), limit of all slots ("": none), limits by type
--       (a=1,b=2), pause of a breaker in ms,
--       number of fields, field, value, ..., score per index
-- Returns {outcome, answer, digest, time in ms}: WRITTEN (with the record's new digest), REPEATED (with the answer given
-- before), CONFLICT, EPOCH (not the Redis we know), FENCED (a later leader has begun), or HINDERED (and by what).
-- The keys of a task type are spelled here, because which type the execution had before is known only here.
local prefix, kind, launcher = ARGV[11], ARGV[12], ARGV[15]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function breaker(name) return prefix .. '/breaker:' .. launcher .. ':' .. name end

-- Whether the breaker of that type lets nothing through.
local function is_barred(name) return tonumber(redis.call('HGET', breaker(name), 'probe_at') or '0') > now end

-- The rule is admission.py's hindrance().
local function hindrance()
  if redis.call('EXISTS', prefix .. '/hold') == 1 then return 'held' end
  if is_barred(kind) then return 'breaker_open' end
  local limits, total = {}, tonumber(ARGV[16]) or math.huge
  for name, limit in string.gmatch(ARGV[17], '([^=,]+)=(%d+)') do limits[name] = tonumber(limit) end
  if total == math.huge and next(limits) == nil then return end
  local function room(name)
    return limits[name] and limits[name] - redis.call('ZCARD', prefix .. '/slots:' .. name) or math.huge
  end
  if room(kind) <= 0 then return 'no_slot_of_type' end
  local free = total - redis.call('ZCARD', prefix .. '/index:live')
  if free <= 0 then return 'no_slot' end
  local since = redis.call('ZSCORE', prefix .. '/line:' .. kind, ARGV[1])
  if not since then return end
  local older = redis.call('ZRANK', prefix .. '/line:' .. kind, ARGV[1])
  if older >= room(kind) then return 'not_its_turn' end
  local ahead = older
  for _, name in ipairs(redis.call('SMEMBERS', prefix .. '/types')) do
    if name ~= kind and not is_barred(name) then
      local count = redis.call('ZCOUNT', prefix .. '/line:' .. name, '-inf', '(' .. since)
      ahead = ahead + math.min(count, math.max(room(name), 0))
    end
  end
  if ahead >= free then return 'not_its_turn' end
end

local function list(name, key, score)
  if score == '' then redis.call('ZREM', prefix .. key .. name, ARGV[1])
  else redis.call('ZADD', prefix .. key .. name, score, ARGV[1]) end
end

-- Put the execution into the line or among the holders of slots of its type, and take it from those of an earlier one.
local function stand(since, live)
  local before = redis.call('HGET', KEYS[2], 'type')
  for _, name in ipairs(before and before ~= kind and {before, kind} or {kind}) do
    list(name, '/line:', name == kind and since or '')
    list(name, '/slots:', name == kind and live or '')
    if redis.call('EXISTS', prefix .. '/line:' .. name, prefix .. '/slots:' .. name) == 0 then
      redis.call('SREM', prefix .. '/types', name)
    else
      redis.call('SADD', prefix .. '/types', name)
    end
  end
  if since == '' and live == '' then redis.call('HDEL', KEYS[2], 'type')
  else redis.call('HSET', KEYS[2], 'type', kind) end
end

local epoch = redis.call('GET', KEYS[4]) or ''
if ARGV[4] == '*' and epoch == '' or ARGV[4] ~= '*' and epoch ~= ARGV[4] then return {'EPOCH', ''} end
if ARGV[5] ~= '' and tonumber(redis.call('GET', KEYS[5]) or '0') > tonumber(ARGV[5]) then return {'FENCED', ''} end

if ARGV[9] ~= '' then
  local answer = redis.call('GET', KEYS[6])
  if answer then return {'REPEATED', answer} end
end

if (redis.call('HGET', KEYS[2], 'version') or '0') ~= ARGV[2] or digest(KEYS[1]) ~= ARGV[3] then
  return {'CONFLICT', ''}
end

if launcher ~= '' then
  local why = hindrance()
  if why then return {'HINDERED', why} end
  if redis.call('EXISTS', breaker(kind)) == 1 then
    redis.call('HSET', breaker(kind), 'probe', ARGV[1], 'probe_at', now + ARGV[18])
  end
end

local written = ARGV[3]
local fields = tonumber(ARGV[19])
if ARGV[6] == 'write' then
  for at = 20, 19 + 2 * fields, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
  written = digest(KEYS[1])
  redis.call('HSET', KEYS[2], 'version', ARGV[2] + 1, 'doc', ARGV[7], 'digest', written)
  redis.call('PERSIST', KEYS[2])
elseif ARGV[6] == 'forget' or ARGV[6] == 'prune' then
  if ARGV[6] == 'prune' then redis.call('DEL', KEYS[1], prefix .. '/payload:' .. ARGV[1]) end
  -- The version outlives the record for a while: one made anew with the same content must not look like the old one.
  redis.call('HDEL', KEYS[2], 'doc', 'digest')
  redis.call('HSET', KEYS[2], 'version', ARGV[2] + 1)
  redis.call('EXPIRE', KEYS[2], 1296000)
end
if ARGV[6] ~= 'remember' then
  for at = 7, #KEYS do
    local score = ARGV[20 + 2 * fields + at - 7]
    if score == '' then redis.call('ZREM', KEYS[at], ARGV[1]) else redis.call('ZADD', KEYS[at], score, ARGV[1]) end
  end
  stand(ARGV[13], ARGV[14])
  if ARGV[8] ~= '' then redis.call('XADD', KEYS[3], '*', 'change', ARGV[8]) end
end
if ARGV[9] ~= '' then
  redis.call('SET', KEYS[6], ARGV[9])
  if ARGV[10] ~= '0' then redis.call('EXPIRE', KEYS[6], ARGV[10]) end
end
return {'WRITTEN', '', written, now}
