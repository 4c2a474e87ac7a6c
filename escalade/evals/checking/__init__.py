"""Does the evaluation itself hold? Checks that run with every comparison, graders, and the gap to the oracle.

selfchecks  all checks of a comparison: planted mistakes that have to be found, and what has to be said
shuffling   what policies gain on shuffled labels: nothing
failing     errors, truncation, wrong format and refusal, counted apart
agreeing    two gradings of the same answers: where they differ; a judge beside the reference
graders     graders by name for recording and studies: number, choice, exact, contains, field, judge
numbers     the number that a text answers with; `judging`: a model as grader
gap         what keeps a policy from the oracle, in parts that add up
"""
