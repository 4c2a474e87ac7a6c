"""A policy in an app: what it decided and with which probability, and what another would have done.

logged      one climb in numbers, with the probability of each step; no texts
log         a file of them, and of the qualities that are told afterwards
propensity  how likely a policy was to decide as it did
watching    a policy whose live climbs are logged, and what one would have logged on recorded outcomes
epsilon     random exploration around a policy, so that others can be judged on its log
canary      a new policy for some users, stopped by itself when it is worse
trial       is the new policy of a canary worse? asked after every climb
shadow      a new policy that decides beside the one that serves
estimates   what another policy would have come to, from such a log, with intervals
"""
