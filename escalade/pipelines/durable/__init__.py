"""Runs that survive the process: what was done is kept by step, and never done or paid again."""
