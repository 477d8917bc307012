-- Put one dead notification behind those of its task again; the next try is its first one.
-- KEYS: dead, due, since, line. ARGV: the dead one's text, task id, event id, text.
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
if redis.call('RPUSH', KEYS[4], now .. ' ' .. ARGV[3] .. '\n' .. ARGV[4]) == 1 then
  redis.call('ZADD', KEYS[2], now, ARGV[2])
  redis.call('ZADD', KEYS[3], now, ARGV[2])
end
return 1
