-- commit: the new value, only if the lock still holds our lease. Returns the state, -1 if refused.
-- Clears doubt, rejection and backoff, and releases the lease.
local lease, value, digest, reason, took = arg.lease, arg.value, arg.digest, arg.reason, arg.took
local life, margin, renew_left = tonumber(arg.life), tonumber(arg.margin), tonumber(arg.renew_left)
local floor, cut = tonumber(arg.floor), tonumber(arg.cut)

if not holds(lease) then
  if finished(lease) then return state() end
  journal('reason', reason, 'result', 'refused', 'version', int(num('version')), 'digest', digest, 'took_ms', took)
  return -1
end

repair()
-- The same value again means "not yet": its life is news, but it is no new version. Unless the
-- holder knows a later one: Redis has lost that, and no replica believes an earlier one.
local version = num('version')
local doubted = num('doubt') ~= 0
local replaces_rejected = version > 0 and num('rejected') == version
local same = version > 0 and version >= floor and checked(redis.pcall('GET', KEYS[1])) == value
if not same then version = math.max(version + 1, floor + 1, now) end

redis.call('SET', KEYS[1], value, 'PX', int(math.max(1, life - margin)))
set('version', int(version), 'margin', int(margin), 'renew_left', int(renew_left),
  'expires_at', int(now + life), 'renew_at', int(now + life - renew_left),
  'digest', digest, 'doubt', 0, 'rejected', 0, 'confirmed_at', int(now))
if not same then
  set('issued_at', int(now), 'issued_by', by, 'past', string.sub(arg.mark .. get('past'), 1, PAST))
  forget_probes()
end
if not replaces_rejected then unset('young') end
-- Since this lease's own cut, a replica whose lease was over cut, too: its fetch may have come
-- later.
local overtaken = cut > 0 and get('cut_by') ~= lease
unset('cut_by', 'prior_expiry', 'prior_margin', 'prior_doubt', 'prior_unclear_at', 'unclear_at')
if overtaken then doubt(cut) end
local forgiven = redis.call('DEL', KEYS[4]) > 0
-- Without leave to ask upstream it was a probe that decided a doubt.
local asked = string.sub(get('granted'), 1, #lease + 1) == lease .. ':'
local result = not same and 'committed' or asked and 'unchanged' or 'doubt_resolved'
if not same or doubted or replaces_rejected or forgiven then
  journal('reason', reason, 'result', result, 'version', int(version), 'digest', digest, 'took_ms', took)
  pack_journal()
end
finish(lease)
publish('committed')
return state()
