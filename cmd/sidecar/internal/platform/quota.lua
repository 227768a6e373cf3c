-- quota: WeChat's quota is spent for one account. When that is so for several of them, it may be the
-- platform's, and no account's token is fetched for a while. KEYS[1] is as in turn.lua, and KEYS[2]
-- has the accounts by when it was so. ARGV: the account, within how many ms, how many are several,
-- and for how many ms nothing is fetched. Returns 1 if that has just begun.
local id, window, several, pause = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - window)
redis.call('ZADD', KEYS[2], now, id)
redis.call('PEXPIRE', KEYS[2], window)
if #redis.call('ZRANGE', KEYS[2], 0, -1) < several then return 0 end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], '@pause', string.format('%.0f', now + pause))
redis.call('PEXPIRE', KEYS[1], pause + 60000)
return 1
