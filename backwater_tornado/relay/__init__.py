"""A relay: moves messages from a broker next door to one far away, and brings home how they ended.

What it takes stands here, what it hands over there; it keeps nothing of its own. See `relay`.
"""
