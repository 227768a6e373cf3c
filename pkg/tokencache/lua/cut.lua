-- cut: without a lease, when a holder that lost its own has, or may have, made upstream supersede
-- what stands. It can only cost one more refresh; its absence, a dead value.
--   left    what may be left: the cut, less the time since upstream was asked, in ms
--   before  since when, in ms, a commit was asked for after that request was over
local left, before = tonumber(arg.left), tonumber(arg.before)
local lease, reason, why = arg.lease, arg.reason, arg.why
mend()
-- A repeat of a call whose reply was lost must not strike what was fetched since.
if get('cut_for') == lease then return 1 end
set('cut_for', lease)
-- This comes late, because Redis was away: what stands was fetched since, and is what superseded ours.
local committed = age('issued_at')
if committed >= 0 and committed < before then return 1 end
doubt(left)
redis.call('HDEL', meta_key, 'cut_by') -- whoever holds the lease now must neither undo this nor trust its own fetch
journal('reason', reason, 'result', 'cut', 'why', why, 'version', int(num('version')))
publish('doubt')
return 1
