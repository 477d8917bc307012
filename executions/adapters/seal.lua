-- Make events a batch: decide for good which object they will be in, and let the stream forget them.
-- An event that is in a batch already, by this or another archiver, is left out.
-- KEYS: stream, open batches, batch. ARGV: group, object name, folder, what the keys of archived events begin with,
-- number of events, execution id, event id, line, ..., entry id, ...
-- Returns how many events are in the batch.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local count = tonumber(ARGV[5])
local lines = {}
for at = 6, 5 + 3 * count, 3 do
  if redis.call('HSETNX', ARGV[4] .. ARGV[at], ARGV[at + 1], ARGV[2]) == 1 then
    lines[#lines + 1] = ARGV[at + 2] .. '\n'
  end
end
if #lines > 0 then
  redis.call('HSET', KEYS[3], 'body', table.concat(lines), 'folder', ARGV[3], 'events', #lines)
  redis.call('ZADD', KEYS[2], now, ARGV[2])
end
for at = 6 + 3 * count, #ARGV do redis.call('XACK', KEYS[1], ARGV[1], ARGV[at]) end
return #lines
