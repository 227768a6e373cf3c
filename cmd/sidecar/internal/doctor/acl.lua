-- Which of the commands of a refresh may this user not run, and which (name?) does this Redis not
-- have? They are run on the keys in ARGV, which no program uses. KEYS has one of the sidecar's, for
-- the way in a Cluster. A key that the ACL does not permit is no matter: the command is.
local value, meta, lock, backoff, journal, channel, vault = unpack(ARGV)
local missing, seen = {}, {}

-- may returns whether the command is permitted, and nil if this Redis has none of this name: it was
-- renamed.
local function may(...)
  local reply = redis.pcall(...)
  local wrong = type(reply) == 'table' and reply.err or ''
  if string.find(wrong, 'nknown', 1, true) then return nil end
  -- Of various versions, about commands, not about keys and channels.
  for _, text in ipairs({ 'permissions to run', "can't run this command" }) do
    if string.find(wrong, text, 1, true) then return false end
  end
  return true
end

local function need(name, ...)
  local permitted = may(name, ...)
  if not permitted and not seen[name] then
    seen[name] = true
    table.insert(missing, permitted == nil and name .. '?' or name) -- ?: there is none
  end
end

need('set', value, 'x', 'PX', '10000')
need('get', value)
need('getrange', value, '0', '-1')
need('pttl', value)
need('pexpire', value, '10000')
need('time')
need('pexpireat', value, '1')
need('del', value)
need('set', lock, 'x', 'PX', '10000', 'NX')
need('hset', meta, 'f', '1')
need('hmget', meta, 'f')
need('hdel', meta, 'f')
need('xadd', journal, 'MAXLEN', '~', '1', '*', 'f', 'v')
need('xlen', journal)
need('copy', journal, lock) -- which is there, so nothing is copied
need('publish', channel, '{}') -- no event: sidecars ignore it
if vault == '1' then
  need('hget', meta, 'f')
  need('hkeys', meta)
  need('zadd', backoff, '1', 'm')
  need('zrange', backoff, '0', '-1')
  need('zrem', backoff, 'm')
  need('zremrangebyscore', backoff, '0', '1')
  need('incr', lock)
end
for _, key in ipairs({ value, meta, lock, backoff, journal }) do
  redis.pcall('pexpire', key, '10000')
  redis.pcall('del', key)
end
return missing
