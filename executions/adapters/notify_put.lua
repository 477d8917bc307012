-- Put one notification behind those of its task, for each channel that it concerns; the same event once.
-- KEYS: ids that were put last, channels, then for each channel: the task's line, due, since.
-- ARGV: how many ids to remember, event id, task id, text, then the channels' names.
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
if redis.call('ZADD', KEYS[1], 'NX', now, ARGV[2]) == 0 then return 0 end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[1] - 1)
for at = 3, #KEYS, 3 do
  redis.call('SADD', KEYS[2], ARGV[5 + (at - 3) / 3])
  if redis.call('RPUSH', KEYS[at], now .. ' ' .. ARGV[2] .. '\n' .. ARGV[4]) == 1 then
    redis.call('ZADD', KEYS[at + 1], now, ARGV[3])
    redis.call('ZADD', KEYS[at + 2], now, ARGV[3])
  end
end
return 1
