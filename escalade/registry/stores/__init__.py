"""Stores that processes share: budgets, rate limits and calls made once, in SQLite (one host) and in Redis (many).

    SqliteLedger  RedisLedger     a `Ledger` whose named accounts live in the store
    SqliteLimiter RedisLimiter    a `RateLimiter` whose windows live there
    SqliteClaims  RedisClaims     who made which call of a tool that is used `once`
    DiskCache     RedisCache      results of tools; one that fails is a miss

Any other store that can't be reached or written refuses (StoreUnavailable): nothing is spent that nobody counts.
"""
