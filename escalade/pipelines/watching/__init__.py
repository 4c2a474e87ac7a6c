"""Seeing a run: the live tree, profiles and critical paths, events as lines of JSON, progress."""
