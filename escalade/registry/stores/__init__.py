"""Stores that processes share: budgets and rate limits in SQLite (one host) and in Redis (many).

    SqliteLedger  RedisLedger     a `Ledger` whose named accounts live in the store
    SqliteLimiter RedisLimiter    a `Limiter` whose windows live there

A store that can't be reached or written refuses (StoreUnavailable): nothing is spent that nobody counts.
"""
