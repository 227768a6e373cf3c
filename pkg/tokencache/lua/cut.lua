-- cut: without a lease, when a holder that lost its own has, or may have, made upstream supersede
-- what stands. It can only cost one more refresh; its absence, a dead value.
local cut, reason, result, lease = tonumber(ARGV[6]), ARGV[7], ARGV[8], ARGV[9]
-- A repeat of a call whose reply was lost must not strike what was fetched since.
if get('cut_for') == lease then return 1 end
set('cut_for', lease)
doubt(cut)
redis.call('HDEL', meta_key, 'cut_by') -- whoever holds the lease now must neither undo this nor trust its own fetch
journal('reason', reason, 'result', 'cut', 'why', result, 'version', int(num('version')))
publish('doubt')
return 1
