-- journal: the last entries of an app's journal, newest first, and Redis' time. In one script,
-- because the time must be that of the node whose clock made the entries' ids. It runs without the
-- prelude: its one key is the journal.
local t = redis.call('TIME')
return { t[1] * 1000 + math.floor(t[2] / 1000), redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[1]) }
