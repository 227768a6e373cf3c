-- Which commands may this user not run, and which (name?) does this Redis not have? Looked up where
-- Redis can say so without running them (7.0), with the keys of a credential; else ('do') by
-- running them, with keys that no program uses.
local value, meta, lock, backoff, journal = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local channel, mode = ARGV[1], ARGV[2]

if mode == 'look' and not redis.acl_check_cmd then return 'do' end

local missing, seen = {}, {}

-- may returns whether the command is permitted, and nil if this Redis has none of this name: it was
-- renamed.
local function may(...)
  if mode == 'look' then
    local known, permitted = pcall(redis.acl_check_cmd, ...)
    if known then return permitted end
    return nil
  end
  local reply = redis.pcall(...)
  local wrong = type(reply) == 'table' and reply.err or ''
  if string.find(wrong, 'nknown', 1, true) then return nil end
  for _, text in ipairs({ 'NOPERM', 'user executing the script', 'ACL failure' }) do -- of various versions
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
need('del', lock)
need('hset', meta, 'f', '1')
need('hmget', meta, 'f')
need('hdel', meta, 'f')
need('hset', backoff, 'f', '1')
need('pexpire', backoff, '10000')
need('del', backoff)
need('xadd', journal, 'MAXLEN', '~', '1', '*', 'f', 'v')
need('pexpire', journal, '10000')
need('publish', channel, '{}') -- no event: sidecars ignore it
if mode == 'look' then
  need('subscribe', channel)
  need('unsubscribe', channel)
  need('ping')
  need('evalsha', '0', '1', value)
else
  for _, key in ipairs(KEYS) do
    redis.pcall('pexpire', key, '10000')
    redis.pcall('del', key)
  end
end
return missing
