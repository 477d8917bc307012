-- Say what became of the head of a task's line. Nothing, when it is the head no more: somebody else has said so.
-- KEYS: due, since, line, tries, dead. ARGV: task id, event id, what (again, gone, dead), then
-- for again: ms to wait, 1 for a refusal; for dead: how many dead ones to keep, the dead one's text.
local head = redis.call('LINDEX', KEYS[3], 0)
if not head or string.match(head, '^%d+ ([^\n]*)\n') ~= ARGV[2] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] == 'again' then
  redis.call('HSET', KEYS[4], 'failed', (redis.call('HGET', KEYS[4], 'failed') or 0) + 1)
  redis.call('HSET', KEYS[4], 'refused', (redis.call('HGET', KEYS[4], 'refused') or 0) + ARGV[5])
  redis.call('ZADD', KEYS[1], now + ARGV[4], ARGV[1])
  return 1
end
redis.call('LPOP', KEYS[3])
redis.call('DEL', KEYS[4])
if ARGV[3] == 'dead' then
  redis.call('RPUSH', KEYS[5], ARGV[5])
  redis.call('LTRIM', KEYS[5], -ARGV[4], -1)
end
local following = redis.call('LINDEX', KEYS[3], 0)
if following then
  -- Its own time begins now: it could not be told while another one was before it.
  redis.call('HSET', KEYS[4], 'since', string.format('%.0f', now))
  redis.call('ZADD', KEYS[1], now, ARGV[1])
  redis.call('ZADD', KEYS[2], string.match(following, '^%d+'), ARGV[1])
else
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
end
return 1
