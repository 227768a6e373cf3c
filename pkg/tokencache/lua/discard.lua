-- discard: under the lease, delete a value that no commit can have written. Returns 1, 0 if the
-- lease is lost.
local lease = arg.lease
if not holds(lease) then return 0 end
redis.call('DEL', KEYS[1])
journal('result', 'discarded', 'version', int(num('version')))
return 1
