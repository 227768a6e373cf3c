-- load: records of a platform, and Redis' time in ms. KEYS[1] is the hash, and ARGV the ids; without
-- ids, it is the key of one code.
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
if #ARGV == 0 then return { now, { redis.call('GET', KEYS[1]) } } end
return { now, redis.call('HMGET', KEYS[1], unpack(ARGV)) }
