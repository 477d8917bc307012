-- Which records are not what we committed last: written, edited or removed by hand. Bodies are compared here and
-- do not travel. KEYS: record and state of each task. Returns the positions (from 1) of those that differ.
local differing = {}
for at = 1, #KEYS, 2 do
  local flat = redis.pcall('HGETALL', KEYS[at])
  if not flat['err'] then
    local names, values, parts = {}, {}, {}
    for field = 1, #flat, 2 do
      names[#names + 1] = flat[field]
      values[flat[field]] = flat[field + 1]
    end
    table.sort(names)
    for index, name in ipairs(names) do
      parts[index] = #name .. ':' .. name .. #values[name] .. ':' .. values[name]
    end
    local digest = #names == 0 and '' or redis.sha1hex(table.concat(parts))
    if (redis.call('HGET', KEYS[at + 1], 'digest') or '') ~= digest then differing[#differing + 1] = (at + 1) / 2 end
  end
end
return differing
