-- turn: whether one account's token may be fetched. KEYS[1] is the platform's hash of turns, which
-- has when the next fetch may begin (@lane), the first moment that is promised to no account
-- (@tail), until when none is fetched (@pause), and for each account that waits the moment that it
-- was promised. ARGV: the account, the gap between two fetches in ms, how many may follow each other
-- without one, and how many ms the caller can wait for its turn.
-- Returns {1, ms until the turn}, or {0, ms after which to ask again, 1 if nothing is fetched now}.
-- A promise keeps its place: an account that comes back in time does not queue again.
local id, gap, burst, patience = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local v = redis.call('HMGET', KEYS[1], '@lane', '@tail', '@pause', id)
local lane, tail, pause, promised = tonumber(v[1]) or 0, tonumber(v[2]) or 0, tonumber(v[3]) or 0, tonumber(v[4]) or 0
-- No fetch begins later than a caller waits, so the clock was stepped back: all that is here is void.
if lane > now + patience + gap then lane, tail, pause, promised = 0, 0, 0, 0 end

local function keep(...)
  redis.call('HSET', KEYS[1], ...)
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(now, tail, pause) - now + 60000))
end

local paused = pause > now and 1 or 0
if promised > now + patience then return { 0, math.max(promised, pause) - now, paused } end
local start = math.max(lane, now - burst * gap, pause)
if promised < now - 60000 or start > now + patience then start = math.max(start, tail) end
if start > now + patience then
  tail = start + gap
  keep(id, string.format('%.0f', start), '@tail', string.format('%.0f', tail))
  return { 0, start - now, paused }
end
tail = math.max(tail, start + gap)
redis.call('HDEL', KEYS[1], id)
keep('@lane', string.format('%.0f', start + gap), '@tail', string.format('%.0f', tail), '@pause', string.format('%.0f', pause))
return { 1, math.max(0, start - now) }
