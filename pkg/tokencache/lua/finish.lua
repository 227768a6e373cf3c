-- finish: the lease ends without a value. Returns {1 or 0 (refused: the lease was lost), backoff in
-- ms}.
--   undo      nothing was issued for sure: back to the life and the doubt that stood before our cut
--   accepted  a probe showed that the reported value works
--   ended     the right to use the value has ended: no replica hands it out any more
-- A backoff doubles with every try in its scope, between base and cap; base 0: none.
local lease, reason, result, undo = arg.lease, arg.reason, arg.result, arg.undo == '1'
local where, base, cap, at_least, jitter = arg.where, tonumber(arg.base), tonumber(arg.cap), tonumber(arg.at_least), tonumber(arg.jitter)
local note, took, code = arg.note, arg.took, arg.code
local probe_gap, ended = tonumber(arg.probe_gap), arg.ended == '1'

if not holds(lease) then
  if finished(lease) then return { 1, backoff() } end
  journal('reason', reason, 'result', result, 'lease', 'lost', 'version', int(num('version')), 'code', code, 'took_ms', took)
  return { 0, 0 }
end

repair()
if undo and get('cut_by') == lease then
  local expiry = num('prior_expiry')
  if expiry > 0 and expiry <= now + MONTH then
    redis.call('PEXPIREAT', KEYS[1], int(expiry))
    set('expires_at', int(expiry + span('prior_margin')))
  end
  set('margin', int(span('prior_margin')), 'doubt', int(num('prior_doubt')), 'unclear_at', int(num('prior_unclear_at')))
  unset('cut_by')
end

-- The versions are no evidence of a value: Redis may have lost its meta.
if ended and (redis.call('DEL', KEYS[1]) > 0 or num('revoked') ~= num('version')) then revoke() end

-- A probe that found a dead value costs nothing: it was worth it.
if result == 'accepted' or result == 'unknown' then spend('probe_tat', probe_gap) end
if result == 'accepted' then set('accepted_at', get('probed_at')) end

local left, n = 0, 1
if base > 0 or where == LOCAL then
  n = tries(where) + 1
  redis.call('HSET', KEYS[4], where .. ':tries', int(n))
  if base > 0 then
    left = math.max(at_least, math.min(cap, base * 2 ^ math.min(n - 1, 30)) * jitter)
    redis.call('HSET', KEYS[4], where .. ':until', int(now + left), where .. ':wait', int(left), where .. ':note', note)
  end
  local keep = left + 3600000
  if redis.call('PTTL', KEYS[4]) < keep then redis.call('PEXPIRE', KEYS[4], int(keep)) end
end
-- Of failures in a row, the 1st, 2nd, 4th, 8th, ... is an entry: an outage of days leaves room for
-- what was before it.
local power = 1
while power < n do power = power * 2 end
if (left > 0 or result == 'failed') and power == n then
  journal('reason', reason, 'result', result, 'version', int(num('version')), 'code', code, 'backoff_ms', int(left), 'took_ms', took)
end
finish(lease)
-- The other replicas need to see a failure even without a backoff, because they may try at once.
if left > 0 or result == 'failed' then publish(result) end
return { 1, int(left) }
