"""Studies: what is to be found out, written down; run, resumed, and kept in a directory.

study       Study (one model, in Python or YAML) and StudyRun, what came of it
rundir      RunDir: the directory; Line: one attempt; appending, torn lines, locks
reading     a run directory as Outcomes, fast; `attempts`: its lines, their figures looked at
recording   many attempts at once under a budget: the engine of studies and of `record`; `unanswered`: who is to blame
plan        which attempts there are, and in which order they are made
hearing     what calls tell: who answered, how many tokens, what a cache saved
identity    what an attempt hangs on: digests of rungs, metrics and labels
telling     progress: a bar in a terminal, lines elsewhere
live        confirm: does a policy come to live what its replay promised?
asking      many questions at once through one program, under a budget
workers     the same study on many processes: its parts as durable runs, each a shard of the directory
running     a study from start to end: what is owed, asked, kept, compared
writing     what the directory says of the study; `regrading`, `changes`: other grades, what differs from before
listing     run directories, for `escalade ls`; `again` opens one with its program and examples
"""
