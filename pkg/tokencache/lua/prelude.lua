-- Goes before every script. All keys of a call share one hash tag, so one Cluster slot.
-- Times are Redis' own, in ms; nothing here is compared with the clock of another host.
local value_key, meta_key, lock_key, backoff_key, journal_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local scope, channel, app, kind, by = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local META_TTL = 7 * 24 * 3600 * 1000 -- longer than any limit remembers
local JOURNAL_LENGTH = 200

-- wrong_type reports whether an answer of redis.pcall says that the key holds another type.
local function wrong_type(reply)
  return type(reply) == 'table' and reply.err ~= nil and string.find(reply.err, 'WRONGTYPE', 1, true) ~= nil
end

local function int(n) return string.format('%.0f', n) end

local function get(field) return redis.call('HGET', meta_key, field) or '' end

local function num(field) return tonumber(get(field)) or 0 end

-- set(field, value, ...) writes to meta and keeps it alive.
local function set(...)
  redis.call('HSET', meta_key, ...)
  redis.call('PEXPIRE', meta_key, META_TTL)
end

-- limited and spend are GCRA: one timestamp a limit, and never more than burst + window/interval.
-- limited says how long to wait, 0 for not at all; spend takes one. A timestamp further ahead than the
-- burst means that Redis' clock was stepped back; it counts for nothing.
local function limited(field, interval, burst)
  if burst <= 0 then return interval end
  if num(field) > now + burst * interval then redis.call('HDEL', meta_key, field) end
  return math.max(0, num(field) - (burst - 1) * interval - now)
end

local function spend(field, interval)
  set(field, int(math.max(num(field), now) + interval))
end

-- What probes found of a value says nothing of another one.
local function forget_probes() redis.call('HDEL', meta_key, 'probed_at', 'accepted_at', 'probe_tat') end

-- backoff returns the ms left of the longer of the two that concern the caller, and its note: '*'
-- is for everybody, the other for whoever uses the same secret.
local function backoff()
  local left, note = 0, ''
  for _, s in ipairs({ '*', scope }) do
    local l = (tonumber(redis.call('HGET', backoff_key, s .. ':until') or 0) or 0) - now
    if l > left then
      left, note = l, redis.call('HGET', backoff_key, s .. ':note') or ''
    end
  end
  return left, note
end

-- age returns the ms since the moment in field, -1 if there is none; or if it is yet to come, because
-- Redis' clock was stepped back.
local function age(field)
  local at = num(field)
  if at == 0 then return -1 end
  return math.max(-1, now - at)
end

-- ahead returns how many ms a limit's timestamp lies ahead.
local function ahead(field) return math.max(0, num(field) - now) end

-- state is what every script tells its caller; store.go decodes it in this order.
local function state()
  local left, note = backoff()
  local bad = num('version') > 0 and num('rejected') == num('version')
  return {
    redis.call('GET', value_key) or '',
    math.max(0, redis.call('PTTL', value_key)),
    num('version'), num('margin'), num('renew_left'), num('doubt'), num('rejected'),
    math.max(0, redis.call('PTTL', lock_key)),
    left, note, age('accepted_at'), num('young'),
    bad and get('digest') or '',
    age('issued_at'), now, ahead('fetch_tat'), ahead('report_tat'), ahead('force_tat'),
    num('confirmed_at'),
  }
end

-- publish must not fail: a script has no way back, and what it did would be half done. A replica that
-- hears nothing has the slow look, and its subscription fails for the same reason, which it tells.
local function publish(event)
  redis.pcall('PUBLISH', channel, string.format('{"app":"%s","kind":"%s","version":%s,"event":"%s","at":%s}',
    app, kind, int(num('version')), event, int(now)))
end

-- journal must not fail, either: it is for people. A key of another type is replaced.
local function journal(...)
  local function add(...)
    return redis.pcall('XADD', journal_key, 'MAXLEN', '~', JOURNAL_LENGTH, '*', 'kind', kind, 'by', by, ...)
  end
  if wrong_type(add(...)) then
    redis.pcall('DEL', journal_key)
    add(...)
  end
  redis.pcall('PEXPIRE', journal_key, META_TTL)
end

-- A lease that this script already concluded, when its reply was lost and the call repeated.
local function concluded(lease) return get('concluded') == lease end

local function holds(lease) return redis.call('GET', lock_key) == lease end

-- conclude ends the lease in the same step as the write that it guarded.
local function conclude(lease)
  set('concluded', lease)
  redis.call('DEL', lock_key)
end

-- doubt shortens what the value's key promises to at most ms, and says why: from now on upstream may
-- hold a value that nobody here knows, and the present one may be dead when the overlap is over.
local function doubt(ms)
  local left = redis.call('PTTL', value_key)
  if left > ms or left == -1 then redis.call('PEXPIRE', value_key, int(ms)) end
  set('doubt', 1, 'unclear_at', int(now), 'margin', 0, 'expires_at', int(now + math.max(0, math.min(left, ms))))
end
