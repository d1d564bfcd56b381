-- What the start page may know of each service: whether it answers, and in how many milliseconds it has answered the last check.
-- The arguments are names of backends.
local names = {...}
-- When the configuration was written, in seconds since 1970.
local file = io.open("/run/gateway/since")
local since = file and file:read("n") or "null"

core.register_service("state", "http", function(applet)
  local states = {}
  for _, name in ipairs(names) do
    local up, time = false, "null"
    for _, server in pairs(core.backends[name].servers) do
      local stats = server:get_stats()
      if string.find(stats.status, "^UP") then
        up, time = true, stats.check_duration or "null" -- before the first check
      end
    end
    table.insert(states, string.format('"%s":{"up":%s,"ms":%s}', name, up, time))
  end
  table.insert(states, '"since":' .. since)
  local body = "{" .. table.concat(states, ",") .. "}"
  applet:set_status(200)
  applet:add_header("content-type", "application/json")
  applet:add_header("cache-control", "no-store")
  applet:add_header("content-length", string.len(body))
  applet:start_response()
  applet:send(body)
end)
