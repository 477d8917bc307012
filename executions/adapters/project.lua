-- Keep the latest state of an execution: an event that is not newer than what is there changes nothing.
-- The order is that of tracking.TrackingEvent.order.
-- KEYS: the execution's hash, executions by time. ARGV: what the keys of projects begin with, execution id, event id,
-- time in ms, sequence number, project ("": none), field, value, ...
-- Returns 1 when it was written.
local function sequence(id)
  local digits = string.match(id, '%.(%d+)$')
  return digits and #digits <= 15 and tonumber(digits) or 0
end
local function listed(project) return ARGV[1] .. project .. ':executions' end

local found = redis.call('HMGET', KEYS[1], 'eventId', 'project')
local at = redis.call('ZSCORE', KEYS[2], ARGV[2])
if found[1] and at then
  local newer = ARGV[4] - tonumber(at)
  if newer == 0 then newer = ARGV[5] - sequence(found[1]) end
  if newer < 0 or (newer == 0 and ARGV[3] <= found[1]) then return 0 end
end
if found[2] and found[2] ~= ARGV[6] then redis.call('ZREM', listed(found[2]), ARGV[2]) end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 7))
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[2])
if ARGV[6] ~= '' then redis.call('ZADD', listed(ARGV[6]), ARGV[4], ARGV[2]) end
return 1
