-- Compare and store: the whole of an execution's change, or nothing. Knows no states and decodes no JSON.
-- KEYS: record, state, feed, epoch, fence, operation, index...
-- ARGV: task id, version, digest, epoch ("*": any, "": there must be none), fence ("": none), mode (write | remember |
--       forget), state document, feed entry, operation's answer, operation's seconds to live (0: none),
--       number of fields, field, value, ..., score per index
-- Returns {outcome, answer, digest, time in ms}: WRITTEN (with the record's new digest), REPEATED (with the answer given
-- before), CONFLICT, EPOCH (not the Redis we know), or FENCED (a later leader has begun).
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

local written, time = ARGV[3], redis.call('TIME')
local fields = tonumber(ARGV[11])
if ARGV[6] == 'write' then
  for at = 12, 11 + 2 * fields, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
  written = digest(KEYS[1])
  redis.call('HSET', KEYS[2], 'version', ARGV[2] + 1, 'doc', ARGV[7], 'digest', written)
  redis.call('PERSIST', KEYS[2])
elseif ARGV[6] == 'forget' then
  -- The version outlives the record for a while: one made anew with the same content must not look like the old one.
  redis.call('HDEL', KEYS[2], 'doc', 'digest')
  redis.call('HSET', KEYS[2], 'version', ARGV[2] + 1)
  redis.call('EXPIRE', KEYS[2], 1296000)
end
if ARGV[6] ~= 'remember' then
  for at = 7, #KEYS do
    local score = ARGV[12 + 2 * fields + at - 7]
    if score == '' then redis.call('ZREM', KEYS[at], ARGV[1]) else redis.call('ZADD', KEYS[at], score, ARGV[1]) end
  end
  if ARGV[8] ~= '' then redis.call('XADD', KEYS[3], '*', 'change', ARGV[8]) end
end
if ARGV[9] ~= '' then
  redis.call('SET', KEYS[6], ARGV[9])
  if ARGV[10] ~= '0' then redis.call('EXPIRE', KEYS[6], ARGV[10]) end
end
return {'WRITTEN', '', written, time[1] * 1000 + math.floor(time[2] / 1000)}
