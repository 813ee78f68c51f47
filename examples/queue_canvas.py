"""Tasks that follow one another, or run side by side: chains, groups and chords.

The broker knows all of it from the start: what comes next is sent when what is before it has ended, and nobody has to
be there for that.
"""

from __future__ import annotations

import jobs

import backwater_tornado as backwater
from backwater_tornado.testing import running_broker, running_worker

TEXTS = ["all work", "and no play", "makes a dull boy"]

with running_broker() as broker, running_worker(broker, [jobs]), backwater.App(broker.url, broker.secret) as app:
    print("one:   ", jobs.count_words.delay("two words").get(timeout=20))

    # Each gets the result of the one before in front of its own arguments.
    chain = jobs.count_words.s("two words") | jobs.times.s(10) | jobs.times.s(2)
    print("chain: ", chain.delay().get(timeout=20))

    # Side by side; the result is the list of theirs.
    group = jobs.count_words.map(TEXTS)
    print("group: ", group.delay().get(timeout=20))

    # The body begins when the whole group has ended, and gets the list.
    chord = backwater.chord(jobs.count_words.map(TEXTS), jobs.total.s() | jobs.times.s(100))
    print("chord: ", chord.delay().get(timeout=20))

    # What follows a task that failed does not run; it fails, too, and says where it began.
    broken = jobs.fetch.s(99).set(max_retries=0) | jobs.count_words.s()
    try:
        broken.delay().get(timeout=20)
    except backwater.TaskError as error:
        print("broken:", error)

    # Sent in one request, however many there are.
    results = app.send_many(jobs.times.s(number, 2) for number in range(1000))
    print("many:  ", sum(result.get(timeout=20) for result in results))

# Output:
# one:    2
# chain:  40
# group:  [2, 3, 4]
# chord:  900
# broken: ...
# many:   999000
