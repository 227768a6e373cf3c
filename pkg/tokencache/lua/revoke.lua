-- revoke: without a lease. The secret behind the value is another one, or the right to use it has
-- ended. A fetch under way has lost its lease, so its commit is refused. What was held against the
-- old secret is forgiven.
repair()
revoke()
redis.call('DEL', KEYS[3])
redis.call('DEL', KEYS[4])
journal('result', 'revoked', 'version', int(num('version')))
publish('revoked')
return 1
