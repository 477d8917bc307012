-- Drop from the stream's old end what every group that counts has acknowledged, except the newest entries.
-- KEYS: stream. ARGV: how many entries to keep, how many to drop at most, group, ...
-- Returns how many went. A group that is not there yet has read nothing.
local function order(id)
  local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(sequence)
end
local function is_before(one, other)
  local ms, sequence = order(one)
  local other_ms, other_sequence = order(other)
  return ms < other_ms or (ms == other_ms and sequence < other_sequence)
end

local surplus = math.min(redis.call('XLEN', KEYS[1]) - tonumber(ARGV[1]), tonumber(ARGV[2]))
if surplus <= 0 then return 0 end

local places = {}
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local found = {}
  for at = 1, #group, 2 do found[group[at]] = group[at + 1] end
  places[found['name']] = found['last-delivered-id']
end

-- The first entry that stays.
local entries = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', surplus + 1)
local first = #entries > surplus and entries[surplus + 1][1] or nil
for at = 3, #ARGV do
  local place = places[ARGV[at]]
  if not place then return 0 end
  local pending = redis.call('XPENDING', KEYS[1], ARGV[at])[2]
  if pending then
    if not first or is_before(pending, first) then first = pending end
  else
    -- Of what was delivered all is acknowledged: the entry itself may go, so what stays begins behind it.
    local ms, sequence = order(place)
    local following = string.format('%.0f-%.0f', ms, sequence + 1)
    if not first or is_before(following, first) then first = following end
  end
end
if not first then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', first)
