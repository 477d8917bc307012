-- Put before the scripts that need it. SHA-1 of a record's content, '' for no record, nil for a key of another type;
-- write.py computes the same on its side.
local function digest(key)
  local flat = redis.pcall('HGETALL', key)
  if flat['err'] then return nil end
  local names, values, parts = {}, {}, {}
  for at = 1, #flat, 2 do
    names[#names + 1] = flat[at]
    values[flat[at]] = flat[at + 1]
  end
  if #names == 0 then return '' end
  table.sort(names)
  for at, name in ipairs(names) do
    parts[at] = #name .. ':' .. name .. #values[name] .. ':' .. values[name]
  end
  return redis.sha1hex(table.concat(parts))
end

