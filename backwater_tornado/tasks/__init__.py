"""Tasks: functions whose calls travel through a broker, as plain values. No clock, no dice, no socket in here.

A call is read in this order: `task` (what `@expose` adds to a function) → `signatures` (a call as a value, and calls
that follow one another) → `workflow` (what the broker is told to make of them) → `messages` (bytes).
"""
