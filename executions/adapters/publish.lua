-- Put lifecycle events onto the stream, each once: a publisher that crashed between this and its next step repeats them.
-- KEYS: stream, ids published last. ARGV: how many ids to remember, id, event, ...
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local count = 0
for at = 2, #ARGV, 2 do
  if redis.call('ZADD', KEYS[2], 'NX', now, ARGV[at]) == 1 then
    redis.call('XADD', KEYS[1], '*', 'event', ARGV[at + 1])
    count = count + 1
  end
end
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -ARGV[1] - 1)
return count
