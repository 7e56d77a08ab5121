local os = require("os")
if obj.metadata.deletionTimestamp ~= nil then
  return {status = "Progressing", message = "being deleted"}
end
local status = obj.status
if status == nil or status.conditions == nil or status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "not reconciled yet"}
end
local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local ready = conditions["Ready"]
if ready == nil then
  return {status = "Progressing", message = "not reconciled yet"}
end
local health = {status = "Progressing", message = ready.message}
if obj.spec.suspend then
  health.status = "Suspended"
elseif ready.status == "True" then
  health.status = "Healthy"
elseif conditions["Stalled"] ~= nil and conditions["Stalled"].status == "True" then
  health.status = "Degraded"
elseif status.token ~= nil and status.token.expiresAt ~= nil and status.token.expiresAt <= os.date("!%Y-%m-%dT%XZ") then
  -- The token has expired, and pods read it.
  health.status = "Degraded"
end
return health
