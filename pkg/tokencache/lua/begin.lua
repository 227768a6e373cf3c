-- begin: under the lease, look again, and say what its holder may do:
--   lost     the caller does not hold the lease (any more)
--   done     another replica has done the work; the state has the result
--   backoff  upstream must not be asked now; the state says how long
--   limited  an allowance is spent; the number says how long
--   probe    the value was reported: find out whether upstream rejects it, then begin again
--   resolve_doubt  the doubt is old enough for a probe to decide it, then begin again
--   go       ask upstream
-- done and backoff release the lease; after the others its holder finishes. go has cut the value
-- where upstream supersedes it.
local lease, reason, want = arg.lease, arg.reason, tonumber(arg.want)
local cut, overlap = tonumber(arg.cut), tonumber(arg.overlap)
local can_resolve_doubt = arg.can_resolve_doubt == '1'
local fetch_every, fetch_burst = tonumber(arg.fetch_every), tonumber(arg.fetch_burst)
local report_every, report_burst = tonumber(arg.report_every), tonumber(arg.report_burst)
local force_every, force_burst, force_gap = tonumber(arg.force_every), tonumber(arg.force_burst), tonumber(arg.force_gap)
local probe_gap, probe_burst = tonumber(arg.probe_gap), tonumber(arg.probe_burst)
local young_age = tonumber(arg.young_age)
local known_left, known_confirmed = tonumber(arg.known_left), tonumber(arg.known_confirmed)
local STEP = 5000 -- ms: more than clocks that are adjusted gently part in a value's life

local function answer(decision, wait)
  if decision == 'done' or decision == 'backoff' then redis.call('DEL', KEYS[3]) end
  return { decision, wait or 0, state() }
end

if not holds(lease) then return answer('lost') end
repair()
-- A repeat of a call whose reply was lost must neither spend twice nor take the cut value for what
-- stood before.
local grant = lease .. ':' .. reason
if get('granted') == grant then return answer('go') end
local probing = lease .. ':probe'
if get('granted') == probing and reason == 'report' then return answer('probe') end

-- Forced refreshes have an allowance of their own, the strictest of all.
if reason == 'force' then
  local wait = limited('force_tat', force_every, force_burst)
  local last = age('forced_at')
  if last >= 0 then wait = math.max(wait, force_gap - last) end
  if force_burst == 0 then wait = force_gap end
  if wait > 0 then return answer('limited', wait) end
  spend('force_tat', force_every)
  set('forced_at', int(now), 'granted', grant)
  return answer('go')
end

local version, doubted = num('version'), num('doubt') ~= 0
local left = redis.call('PTTL', KEYS[1])
-- The holder knows how long the key had to live, and the key lives longer: Redis' clock was stepped
-- back, and the key would outlive the value by as much.
if known_left >= 0 and version == want and num('confirmed_at') == known_confirmed and left > known_left + STEP then
  left = math.max(1, known_left)
  redis.call('PEXPIRE', KEYS[1], int(left))
  set('expires_at', int(now + left + span('margin')))
  if known_left == 0 then left = 0 end
end
local usable = left > 0 and version > 0 and version ~= num('rejected')

-- The double check: without it every waiter would fetch once more. A version below the wanted one
-- means that Redis lost data: the value there may be superseded.
if reason == 'rejected' then
  if version == want then
    redis.call('DEL', KEYS[1])
    if num('rejected') ~= want then
      set('rejected', int(want))
      forget_probes()
      local age_now = age('issued_at')
      if age_now >= 0 and age_now < young_age then
        set('young', int(num('young') + 1))
      else
        unset('young')
      end
      publish('rejected')
    end
  elseif usable and version > want then
    return answer('done')
  end
elseif usable and reason == 'report' then
  if version > want then return answer('done') end
  if version == want then
    -- After some probes in a row that found the value good, or nothing, each answers every report for a while. So
    -- false reports cost a bounded number, and never keep a death from being found for longer than the gap.
    local wait = limited('probe_tat', probe_gap, probe_burst)
    if wait > 0 then
      local accepted = age('accepted_at')
      if accepted >= 0 and accepted <= probe_gap then return answer('done') end
      return answer('limited', wait)
    end
    set('probed_at', int(now), 'granted', probing)
    return answer('probe')
  end
elseif usable and num('doubt') == 0 then
  local due = left + span('margin') <= span('renew_left')
  if version > want or (version == want and not due) then return answer('done') end
elseif can_resolve_doubt and version == want and num('doubt') == 1 and num('rejected') ~= version
  and age('unclear_at') > overlap then
  set('cut_by', lease)
  return answer('resolve_doubt')
end

-- Redis lost a commit, so the present value may be superseded, whether or not upstream may be asked
-- now.
if cut > 0 and left > 0 and version < want then
  doubt(cut)
  publish('doubt')
  left = redis.call('PTTL', KEYS[1])
end

if backoff() > 0 then return answer('backoff') end

-- A value that is missing because it was rejected counts as reported, for whatever reason the
-- refresh runs.
local reported = version > 0 and version == num('rejected')
if reported then
  local wait = limited('report_tat', report_every, report_burst)
  if wait > 0 then return answer('limited', wait) end
end
local wait = limited('fetch_tat', fetch_every, fetch_burst)
if wait > 0 then return answer('limited', wait) end
spend('fetch_tat', fetch_every)
if reported then spend('report_tat', report_every) end

set('granted', grant)
if cut > 0 then
  set('cut_by', lease, 'prior_expiry', int(left > 0 and now + left or 0), 'prior_margin', int(span('margin')),
    'prior_doubt', int(num('doubt')), 'prior_unclear_at', int(num('unclear_at')))
  doubt(cut)
  -- The only trace of a lease holder that is killed from here on. The failures that follow each other change nothing more.
  if left ~= -2 and not doubted and tries('*') + tries(scope) + tries(LOCAL) == 0 then
    journal('reason', reason, 'result', 'cut', 'why', 'fetch', 'version', int(num('version')))
  end
  publish('doubt')
end
return answer('go')
