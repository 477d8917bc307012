-- Which records are not what we committed last: written, edited or removed by hand. Bodies are compared here and
-- do not travel. KEYS: record and state of each task. Returns the positions (from 1) of those that differ.
local differing = {}
for at = 1, #KEYS, 2 do
  local now = digest(KEYS[at])
  if now and (redis.call('HGET', KEYS[at + 1], 'digest') or '') ~= now then differing[#differing + 1] = (at + 1) / 2 end
end
return differing
