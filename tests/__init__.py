"""The tests mirror the rooms; `tests/test_*.py` hold what is true of the whole house."""
