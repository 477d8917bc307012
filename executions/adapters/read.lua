-- One consistent look at some executions.
-- KEYS: epoch, then record and state of each task. Returns {epoch, time in ms, {version, document, digest, attempts}...}.
local time = redis.call('TIME')
local found = {redis.call('GET', KEYS[1]) or '', time[1] * 1000 + math.floor(time[2] / 1000)}
for at = 2, #KEYS, 2 do
  local state = redis.call('HMGET', KEYS[at + 1], 'version', 'doc', 'digest')
  local attempts = redis.pcall('HGETALL', KEYS[at])
  if attempts['err'] then attempts = false end
  found[#found + 1] = {state[1] or '0', state[2] or '', state[3] or '', attempts}
end
return found
