"""What sending a task gives: a handle to its state and its result.

Nothing is kept here but ids; whoever has an id can ask, from any process and any host. Waiting is a long poll at the
broker, which answers the moment the task ends.

Rule: every question is one line over the application's `ask`; what is known of outcomes is in `tasks.outcomes`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .broker.values import Result
from .errors import DeadlineExceeded
from .tasks.messages import Inputs, input_ids
from .tasks.outcomes import error_of, read_outcome, state_of
from .tasks.states import FINAL, State

if TYPE_CHECKING:
    from .app import App

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
