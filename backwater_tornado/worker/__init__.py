"""Workers: they take tasks from a broker, run them, and say how they ended. Outbound HTTP is all they need.

Read `worker` (what it takes and what it hands back) → `jobs` (one run as a value) → `pools` (where it runs) →
`execution` (what running means).
"""
