-- caplease: a lock key without an expiry, or with a longer one than any lease, was written by no
-- replica (a restore, a PERSIST, an operator's SET), or Redis' clock was stepped back. It stops
-- every refresh. It is left one lease to live, which is more than the holder of a true lease still
-- counts on. Returns 1 if it did that.
local lease_ttl = tonumber(arg.lease_ttl)
local left = redis.call('PTTL', KEYS[3])
if left ~= -1 and left <= lease_ttl then return 0 end
redis.call('PEXPIRE', KEYS[3], int(lease_ttl))
journal('result', 'lease_capped', 'version', int(num('version')))
return 1
