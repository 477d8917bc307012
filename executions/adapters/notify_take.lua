-- Take the heads of tasks that are due, those that wait longest first; for the lease they are nobody else's.
-- KEYS: due. ARGV: what the keys of lines begin with, what those of tries begin with, how many, lease.
-- Returns now, ms until the next one is due (-1: none), then for each: task id, entry, failed tries, refusals, since.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = {now, -1}
for _, task in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[3])) do
  local entry = redis.call('LINDEX', ARGV[1] .. task, 0)
  if entry then
    redis.call('ZADD', KEYS[1], now + ARGV[4], task)
    local tries = redis.call('HMGET', ARGV[2] .. task, 'failed', 'refused', 'since')
    for _, item in ipairs({task, entry, tries[1] or '0', tries[2] or '0', tries[3] or ''}) do
      answer[#answer + 1] = item
    end
  else
    redis.call('ZREM', KEYS[1], task)
  end
end
local following = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if following[2] then answer[2] = math.max(following[2] - now, 0) end
return answer
