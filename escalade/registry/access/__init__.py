"""Who may use what.

rules, conditions       what policies are made of
policy                  `Roles`: a policy, its decisions, its digest
files                   policies from YAML, JSON and TOML; `policy.schema.json` describes them
explain, simulate       why; and who would gain or lose what by another policy
reach                   whether any call at all could be allowed
index                   a thousand patterns in microseconds
near, unmatched         slips of the pen: rules that nearly match; rules that match nothing
holders                 who has a role that limits, cohorts or regions name
cedar                   policies in Cedar, with the `cedar` extra
"""

from escalade.registry.access.policy import Roles, everything_allowed

__all__ = ["Roles", "everything_allowed"]
