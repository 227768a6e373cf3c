-- Goes before every script. All keys of a call share one hash tag, so one Cluster slot.
-- Times are Redis' own, in ms; nothing here is compared with the clock of another host.
-- KEYS[1] is the value, [2] its meta, [3] its lock, [4] its backoff and [5] the journal of the app.
-- They are written so in every redis.call, and not named: some Cluster services refuse a script in
-- which a key is anything else than a literal KEYS[n].
-- arg has the arguments by name: ARGV is a name and a value in turn.
local arg = {}
for i = 1, #ARGV, 2 do arg[ARGV[i]] = ARGV[i + 1] end
local scope, channel, app, kind, by, journal_length = arg.scope, arg.channel, arg.app, arg.kind, arg.by, tonumber(arg.journal_length)

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local META_TTL = 7 * 24 * 3600 * 1000 -- longer than any limit remembers
local MONTH = 30 * 24 * 3600 * 1000 -- nothing here lives longer
local LONGEST_BACKOFF = 24 * 3600 * 1000 -- the same number as in errors.go
local CENTURY = 100 * 365 * 24 * 3600 * 1000
local PAST = 5 * 12 -- the marks of the last five values, the present one in front: a replica that starts knows whose they were
local SHORT_JOURNAL = 30 -- entries: the same number as in journal.go
local LONGEST_TEXT = 16384 -- bytes of a note or a digest that an answer repeats: more than any that a script wrote

-- wrong_type reports whether an answer of redis.pcall says that the key holds another type.
local function wrong_type(reply)
  return type(reply) == 'table' and reply.err ~= nil and string.find(reply.err, 'WRONGTYPE', 1, true) ~= nil
end

local function int(n) return string.format('%.0f', n) end

-- checked takes what redis.pcall returned for a read. A key of another type than the scripts write
-- counts as missing. Any other error ends the script, as redis.call would: since Redis 7 with the
-- table, whose code stays in front; before, with the text.
local function checked(reply)
  if wrong_type(reply) then return false end
  if type(reply) == 'table' and reply.err then error(reply.source and reply or reply.err, 0) end
  return reply
end

-- repair deletes keys of another type. Every script that writes begins with it: such a key would
-- break it off half way.
local function repair()
  if wrong_type(redis.pcall('GET', KEYS[1])) then redis.call('DEL', KEYS[1]) end
  if wrong_type(redis.pcall('HMGET', KEYS[2], 'version')) then redis.call('DEL', KEYS[2]) end
  if wrong_type(redis.pcall('HMGET', KEYS[4], 'version')) then redis.call('DEL', KEYS[4]) end
end

-- number reads what a script wrote as int: a moment or a version, a span or a count. What no script
-- can have written counts as 0, and the next write replaces it. The bound moves with Redis' clock,
-- faster than versions grow: a fixed one could be reached from below, and every commit after that
-- would count as nothing.
local function number(text)
  local n = type(text) == 'string' and #text <= 16 and string.match(text, '^%d+$') and tonumber(text) or 0
  return n <= now + CENTURY and n or 0
end

-- Everything that the scripts keep in meta. One command reads it.
local FIELDS = {
  'version', 'margin', 'renew_left', 'expires_at', 'renew_at', 'digest', 'doubt', 'unclear_at', 'rejected', 'revoked', 'confirmed_at',
  'issued_at', 'issued_by', 'past', 'young', 'granted', 'finished', 'cut_by', 'cut_for',
  'prior_expiry', 'prior_margin', 'prior_doubt', 'prior_unclear_at', 'probed_at', 'accepted_at', 'forced_at',
  'fetch_tat', 'report_tat', 'force_tat', 'probe_tat',
}
local meta -- by field, as far as this call has read or written it

local function get(field)
  if not meta then
    meta = {}
    local values = checked(redis.pcall('HMGET', KEYS[2], unpack(FIELDS))) or {}
    for i, name in ipairs(FIELDS) do meta[name] = values[i] or '' end
  end
  return (assert(meta[field], field))
end

local function num(field) return number(get(field)) end

-- span reads how long something lasts.
local function span(field)
  local ms = num(field)
  return ms <= MONTH and ms or 0
end

-- set(field, value, ...) writes to meta and keeps it alive.
local function set(...)
  redis.call('HSET', KEYS[2], ...)
  redis.call('PEXPIRE', KEYS[2], META_TTL)
  local written = { ... }
  for i = 1, #written, 2 do
    get(written[i])
    meta[written[i]] = tostring(written[i + 1])
  end
end

-- unset(field, ...) deletes from meta.
local function unset(...)
  redis.call('HDEL', KEYS[2], ...)
  for _, field in ipairs({ ... }) do
    get(field)
    meta[field] = ''
  end
end

-- limited and spend are GCRA: one timestamp a limit, and never more than burst + window/interval.
-- limited says how long to wait, 0 for not at all; spend takes one. A timestamp further ahead than
-- the burst means that Redis' clock was stepped back; it counts for nothing.
local function limited(field, interval, burst)
  if burst <= 0 then return interval end
  if num(field) > now + burst * interval then unset(field) end
  return math.max(0, num(field) - (burst - 1) * interval - now)
end

local function spend(field, interval)
  set(field, int(math.max(num(field), now) + interval))
end

-- What probes found of a value says nothing of another one.
local function forget_probes() unset('probed_at', 'accepted_at', 'probe_tat') end

-- backoff returns the ms left of the longer of the two that concern the caller, and its note: '*'
-- is for every secret, the other for the caller's. One that ends later than it was written to last,
-- or than any lasts, is garbage, or Redis' clock was stepped back: it counts for nothing.
local function backoff()
  local left, note = 0, ''
  local fields = checked(redis.pcall('HMGET', KEYS[4], '*:until', '*:wait', '*:note',
    scope .. ':until', scope .. ':wait', scope .. ':note')) or {}
  for i = 1, 4, 3 do
    local l = number(fields[i]) - now
    local wait = math.min(number(fields[i + 1]), LONGEST_BACKOFF)
    if l > left and l <= wait + 1000 then
      left, note = l, fields[i + 2] or ''
    end
  end
  return left, note
end

-- age returns the ms since the moment in field, -1 if there is none; or if it is yet to come,
-- because Redis' clock was stepped back.
local function age(field)
  local at = num(field)
  if at == 0 then return -1 end
  return math.max(-1, now - at)
end

-- ahead returns how many ms a limit's timestamp lies ahead.
local function ahead(field) return math.max(0, num(field) - now) end

-- quiet reports whether value is good, and no refresh is due for so long that neither a lease nor a
-- backoff matters to the one who asks. left is what its key has to live. The time is longer than
-- the replicas spread their renewals, and a lease.
local function quiet(value, left)
  return value ~= '' and left > 0 and left <= MONTH and num('doubt') == 0 and num('version') > 0
    and num('rejected') ~= num('version') and left + span('margin') - span('renew_left') > 75000
end

-- state is what every script returns: a name and its value in turn, as wire.go decodes them. brief
-- is for the slow re-read: where meta shows that all is quiet, three commands are enough. The life
-- of the key is then what the commit wrote down, so an EXPIRE by another program is noticed by the
-- next look for another reason, at the latest when the value is due.
local function state(brief)
  -- One byte more than the longest value: enough to see that it is none.
  local value = checked(redis.pcall('GETRANGE', KEYS[1], 0, 4096)) or ''
  local key_left = num('expires_at') - span('margin') - now
  local lock_left, left, note = -2, 0, ''
  if not (brief and quiet(value, key_left)) then
    key_left, lock_left = redis.call('PTTL', KEYS[1]), redis.call('PTTL', KEYS[3])
    left, note = backoff()
  end
  return {
    'value', value,
    'left', math.max(0, key_left),
    'version', num('version'), 'margin', span('margin'), 'renew_left', span('renew_left'),
    'doubt', num('doubt'), 'rejected', num('rejected'), 'revoked', num('revoked'),
    'lock_left', lock_left,
    'backoff', left, 'note', string.sub(note, 1, LONGEST_TEXT),
    'accepted_age', age('accepted_at'), 'young', num('young'),
    'digest', string.sub(get('digest'), 1, LONGEST_TEXT), -- a longer answer would end the connection, at every look
    'issued_age', age('issued_at'), 'now', now,
    'fetches_ahead', ahead('fetch_tat'), 'reports_ahead', ahead('report_tat'), 'forced_ahead', ahead('force_tat'),
    'confirmed', num('confirmed_at'), 'past', string.sub(get('past'), 1, PAST),
  }
end

-- publish must not fail: a script has no way back, and what it did would be half done. A replica
-- without events still re-reads, and its subscription fails for the same reason, which it reports.
local function publish(event)
  redis.pcall('PUBLISH', channel, string.format('{"app":"%s","kind":"%s","version":%s,"event":"%s","at":%s}',
    app, kind, int(num('version')), event, int(now)))
end

-- tries returns how many fetches failed in a row in a scope of the backoff.
local function tries(s)
  local fields = checked(redis.pcall('HMGET', KEYS[4], s .. ':tries')) or {}
  return math.min(number(fields[1]), 1000000)
end

-- The scope of failures that concern one pod only, and so make no backoff of the cluster.
local LOCAL = 'local'

-- journal adds an entry. One is worth it only if the version, the doubt, the rejection or the
-- backoff changes: tickets that come back unchanged every 4 minutes would leave no room for
-- anything else. It must not fail: it is for people. A key of another type is replaced. Redis drops
-- whole blocks only, so a journal that is to be shorter than one begins anew.
local function journal(...)
  local function add(...)
    return redis.pcall('XADD', KEYS[5], 'MAXLEN', '~', journal_length, '*', 'kind', kind, 'by', by, ...)
  end
  local length = redis.pcall('XLEN', KEYS[5])
  if journal_length <= SHORT_JOURNAL and type(length) == 'number' and length >= journal_length then
    redis.pcall('DEL', KEYS[5])
  end
  if wrong_type(add(...)) then
    redis.pcall('DEL', KEYS[5])
    add(...)
  end
  redis.pcall('PEXPIRE', KEYS[5], META_TTL)
end

-- pack_journal gives back what the last block of the journal has too much: Redis makes each of
-- 4 KiB at once, and that of a copy as large as what is in it. The copy lies under the key of the
-- backoff for a moment, because another key would be one more to permit. Where there is a backoff,
-- nothing happens.
local function pack_journal()
  if redis.pcall('COPY', KEYS[5], KEYS[4]) == 1 then
    redis.pcall('COPY', KEYS[4], KEYS[5], 'REPLACE')
    redis.pcall('DEL', KEYS[4])
  end
end

-- A lease that this script already finished, when its reply was lost and the call repeated.
local function finished(lease) return get('finished') == lease end

local function holds(lease) return checked(redis.pcall('GET', KEYS[3])) == lease end

-- finish ends the lease in the same step as the write that it guarded.
local function finish(lease)
  unset('granted')
  set('finished', lease)
  redis.call('DEL', KEYS[3])
end

-- doubt shortens what the value's key promises to at most ms, and says why: from now on upstream
-- may have a newer value that no replica knows, and the present one may be dead when the overlap is
-- over.
local function doubt(ms)
  local left = redis.call('PTTL', KEYS[1])
  if left > ms or left == -1 then redis.call('PEXPIRE', KEYS[1], int(ms)) end
  set('doubt', 1, 'unclear_at', int(now), 'margin', 0, 'expires_at', int(now + math.max(0, math.min(left, ms))))
end

-- revoke takes the value away, and marks every version so far as one that no replica may hand out.
-- The mark is a version of its own, because Redis may have lost the one that the replicas know.
local function revoke()
  redis.call('DEL', KEYS[1])
  local version = math.max(num('version') + 1, now)
  set('version', int(version), 'revoked', int(version), 'doubt', 0, 'margin', 0, 'expires_at', 0)
  unset('granted', 'unclear_at', 'cut_by', 'prior_expiry', 'prior_margin', 'prior_doubt', 'prior_unclear_at')
end
