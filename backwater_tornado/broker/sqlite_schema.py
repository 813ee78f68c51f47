"""The tables of the store in SQLite, as a list of migrations: what was released is never changed, only added to.

A message is one row of `messages` (which stays without its content when it is gone, as long as it is remembered), and
for each queue that it is in one of `copies`, which is small, for it changes often. `seq` is its place in the order of
publication. The indexes are partial, so that each holds only what somebody looks for in it.

Ids may come in any order, so each one that is written touches another page of its index. Therefore the index is of
short numbers made from the ids (ten times as many to a page; those of tasks begin with their time and stay in its
order), and all else of a message, its result too, is written where its neighbours in time are.
"""

from __future__ import annotations

from typing import Final

#: `copies.state`; the partial indexes name them by their numbers.
READY: Final = 0
DELAYED: Final = 1
LEASED: Final = 2
PARKED: Final = 3
DEAD: Final = 4

MIGRATIONS: Final = (
    """
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('token', 0);

CREATE TABLE exchanges (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE bindings (
    number INTEGER PRIMARY KEY, exchange TEXT NOT NULL, queue TEXT NOT NULL, pattern TEXT NOT NULL,
    UNIQUE (exchange, queue, pattern)
);
CREATE TABLE queues (
    name TEXT PRIMARY KEY, value BLOB NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0,  -- it is, and deliveries are out
    expires REAL,  -- while nobody receives from it
    next_at REAL NOT NULL DEFAULT -9e999,  -- when its rate lets the next be handed out
    ready INTEGER NOT NULL DEFAULT 0, delayed INTEGER NOT NULL DEFAULT 0,
    leased INTEGER NOT NULL DEFAULT 0, dead INTEGER NOT NULL DEFAULT 0,
    published INTEGER NOT NULL DEFAULT 0, delivered INTEGER NOT NULL DEFAULT 0, acked INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX queues_expires ON queues (expires) WHERE expires IS NOT NULL;
CREATE TABLE receivers (queue TEXT, session TEXT, PRIMARY KEY (queue, session)) WITHOUT ROWID;
CREATE INDEX receivers_of_session ON receivers (session);

CREATE TABLE messages (
    number INTEGER PRIMARY KEY,  -- the place of its first copy; the others come next
    short INTEGER NOT NULL,  -- for the id
    id TEXT NOT NULL,
    digest BLOB,  -- NULL: it was cancelled, and has yet to come
    queues BLOB, copies INTEGER NOT NULL,
    going INTEGER NOT NULL,  -- copies that have not ended
    kept INTEGER NOT NULL,  -- copies that are here, the dead ones too
    failed INTEGER NOT NULL DEFAULT 0,
    cancelled BLOB, unique_key TEXT, joins BLOB,
    until REAL,  -- when nothing is here any more: how long it is remembered
    envelope BLOB, body BLOB
);
CREATE INDEX messages_short ON messages (short);
CREATE INDEX messages_until ON messages (until) WHERE until IS NOT NULL;

CREATE TABLE copies (
    seq INTEGER PRIMARY KEY, message INTEGER NOT NULL, queue TEXT NOT NULL, state INTEGER NOT NULL,
    rank INTEGER NOT NULL,  -- the priority, turned round
    published REAL NOT NULL, due REAL NOT NULL, expires REAL, keep_result REAL,
    count INTEGER NOT NULL DEFAULT 0,
    token INTEGER, session TEXT,  -- while it is leased, or has come back without a settlement
    cancelled INTEGER NOT NULL DEFAULT 0,  -- while it was leased
    once INTEGER NOT NULL DEFAULT 0,  -- its receiver has begun, and nobody may again
    replayed INTEGER NOT NULL DEFAULT 0,  -- its place is not the one in `messages`
    envelope BLOB, body BLOB  -- its own, if it has become another message than that
);
CREATE INDEX ready ON copies (queue, rank, seq) WHERE state = 0;
CREATE INDEX delayed ON copies (due) WHERE state = 1;
CREATE INDEX delayed_of_queue ON copies (queue, due, seq) WHERE state = 1;
CREATE INDEX leased ON copies (session, token) WHERE state = 2;
CREATE INDEX claimable ON copies (session, token) WHERE state = 0 AND token IS NOT NULL;
CREATE INDEX expiring ON copies (expires) WHERE expires IS NOT NULL AND state < 2;
CREATE INDEX replayed ON copies (message) WHERE replayed = 1;

CREATE TABLE uniques (key TEXT PRIMARY KEY, id TEXT NOT NULL, until REAL) WITHOUT ROWID;
CREATE INDEX uniques_until ON uniques (until) WHERE until IS NOT NULL;
CREATE TABLE joins (
    id TEXT PRIMARY KEY, size INTEGER,  -- NULL: it has yet to come
    value BLOB, ended INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, closed INTEGER NOT NULL DEFAULT 0,
    expires REAL,  -- while it is open
    until REAL  -- while it is closed, or has yet to come
) WITHOUT ROWID;
CREATE INDEX joins_expires ON joins (expires) WHERE expires IS NOT NULL;
CREATE INDEX joins_until ON joins (until) WHERE until IS NOT NULL;
CREATE TABLE members (part_of TEXT, id TEXT, PRIMARY KEY (part_of, id)) WITHOUT ROWID;

CREATE TABLE sessions (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, ttl REAL NOT NULL, expires REAL NOT NULL,
    confirmed INTEGER NOT NULL DEFAULT 0, batch INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX sessions_expires ON sessions (expires);
CREATE TABLE settled (token INTEGER PRIMARY KEY, until REAL NOT NULL);
CREATE INDEX settled_until ON settled (until);

CREATE TABLE results (
    number INTEGER PRIMARY KEY,  -- of its message
    outcome BLOB NOT NULL, final INTEGER NOT NULL, at REAL NOT NULL, until REAL NOT NULL
);
CREATE INDEX results_until ON results (until);
CREATE TABLE dead (
    number INTEGER PRIMARY KEY AUTOINCREMENT, seq INTEGER NOT NULL UNIQUE, queue TEXT NOT NULL,
    reason TEXT NOT NULL, detail TEXT NOT NULL, at REAL NOT NULL
);
CREATE INDEX dead_of_queue ON dead (queue, number);
CREATE TABLE entries (name TEXT PRIMARY KEY, due REAL NOT NULL, value BLOB NOT NULL) WITHOUT ROWID
""",
)
