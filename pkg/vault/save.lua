-- save: compare and swap. KEYS[1] is the platform's hash of records, or the key of one code; KEYS[2]
-- has the codes whose exchange has not ended, by when they were saved.
-- Returns the new rev, or -1 if the record has another rev than the caller has seen.
-- A record is one text: rev, state, order, when it was saved in ms by Redis' clock, and what is
-- sealed of it in base64.
local id, rev, state, order, sealed, life, open = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7] == '1'
local old
if life > 0 then old = redis.call('GET', KEYS[1]) else old = redis.call('HGET', KEYS[1], id) end
local present = 0
if old then
  present = tonumber(string.match(old, '^[1-9]%d*')) or -1 -- what wxtoken did not write is not overwritten
  -- The answer to this very call was lost, and it was sent again. It writes again, so that the
  -- connection which asks has a write whose way to the disk it can wait for.
  if present == rev + 1 and string.match(old, '%S+$') == sealed then present = rev end
end
if present ~= rev then return -1 end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local new = string.format('%.0f %s %s %.0f %s', rev + 1, state, order, now, sealed)
if life > 0 then
  redis.call('SET', KEYS[1], new, 'PX', life)
  if open then redis.call('ZADD', KEYS[2], now, id) else redis.call('ZREM', KEYS[2], id) end
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - life) -- whose records have expired
else
  redis.call('HSET', KEYS[1], id, new)
end
return rev + 1
