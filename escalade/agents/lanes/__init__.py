"""Lanes: what a provider's account lets through, shaped on our side, so that it is never asked for more.

lane.py       Lane, one provider account; Place, one attempt in it
priority.py   who goes first: interactive before batch
_line.py      who waits, and whose turn is next: fair between tenants
_windows.py   requests and tokens per minute
_pace.py      how many at once: fewer after a 429, more again after answers
_clock.py     the time, and one thread that wakes lanes when a window frees up
"""
