-- Count a launch failure; the same one often enough within the window opens the breaker of its launcher and task type.
-- KEYS: failures with that code, the breaker, all open breakers
-- ARGV: code, what makes this failure one, window in ms, how many open it, pause in ms, the breaker's name in the set
-- Returns 1 when it was opened by this failure. A failure while it is open ends what was let through and begins a pause.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('HSET', KEYS[2], 'probe_at', now + ARGV[5])
  redis.call('HDEL', KEYS[2], 'probe')
  return 0
end
if redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[4]) then return 0 end
redis.call('HSET', KEYS[2], 'code', ARGV[1], 'opened_at', now, 'probe_at', now + ARGV[5])
redis.call('SADD', KEYS[3], ARGV[6])
redis.call('DEL', KEYS[1])
return 1
