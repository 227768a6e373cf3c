-- cut: without a lease. A replica that lost its lease has, or may have, made upstream supersede the
-- present value. A cut costs at most one more refresh; a missing cut leaves a dead value in Redis.
--   left    what may be left: the cut, less the time since upstream was asked, in ms
--   before  since when, in ms, a commit was asked for after that request was over
local left, before = tonumber(arg.left), tonumber(arg.before)
local lease, reason, why = arg.lease, arg.reason, arg.why
repair()
-- A repeat of a call whose reply was lost must not strike what was fetched since.
if get('cut_for') == lease then return 1 end
set('cut_for', lease)
-- This cut comes late, because Redis was away: the present value was fetched after that request.
local committed = age('issued_at')
if committed >= 0 and committed < before then return 1 end
doubt(left)
unset('cut_by') -- the present lease holder must neither undo this nor trust its own fetch
journal('reason', reason, 'result', 'cut', 'why', why, 'version', int(num('version')))
publish('doubt')
return 1
