"""Before a run: which fields go where and of which types, and what it may cost and take."""
