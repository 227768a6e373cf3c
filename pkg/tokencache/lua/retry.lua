-- retry: the reason of the backoff is gone, for every secret. Returns 1 if there was one.
repair()
if redis.call('DEL', KEYS[4]) == 0 then return 0 end
journal('result', 'retry', 'version', int(num('version')))
publish('retry')
return 1
