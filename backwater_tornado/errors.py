"""Every exception of the package, and which of them may cross the wire.

The tree is split by what the caller can do about it::

    BackwaterError
    ├── ConfigurationError (ValueError)     fix the program or its settings
    │   ├── InvalidEndpoint, InvalidKey, InvalidOption, InvalidExposure
    ├── Unserializable (TypeError)          an argument (or a result) has no form on the wire
    └── CallFailed
        ├── Unreachable (ConnectionError)   no answer, and nothing was sent: safe to call again
        │   └── TLSFailed                   the server's certificate was not accepted
        ├── OutcomeUnknown                  no answer, and the function may have run
        ├── DeadlineExceeded (TimeoutError) the time given to the call is over
        ├── Unverified                      an answer came, and it is not the server's
        │   ├── ResponseUnsigned, ResponseAltered, ResponseMismatched, ResponseUndecodable
        ├── Refused                         the server did not run the function; `.code` says why
        │   └── one class per code, see `WIRE_ERRORS`
        ├── RemoteError                     the function ran and raised
        │   └── ErlangError                 on a node of Erlang's backwater
        ├── TaskError                       a task ended without a result of its function
        │   ├── TaskRevoked, TaskExpired, TaskLost, TaskRejected, TaskNotAccepted, UpstreamFailed, TimeLimitExceeded
        │   ├── SoftTimeLimitExceeded, MaxRetriesExceeded
        ├── OutboxFull                      there is no room in the sender's own outbox: nothing was sent
        ├── ResultUnserializable, ResultTooLarge   it ran, and its result cannot travel
        └── InternalError                   the server failed by a fault of its own

Rule: what crosses the wire is a closed table, `WIRE_ERRORS`; a code that is not in it is rebuilt as plain
`Refused`, never by importing a name that a peer sent. This module knows nothing else of the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class BackwaterError(Exception):
    """Base of every exception that this package raises on purpose."""


class ConfigurationError(BackwaterError, ValueError):
    """A setting is wrong; the message names it and what it should be."""


class InvalidEndpoint(ConfigurationError):
    """An endpoint is neither a URL, a host, a (host, port) pair nor an IP address."""


class InvalidKey(ConfigurationError):
    """A key, or a file of keys, cannot be used."""


class InvalidOption(ConfigurationError):
    """An option has a value out of its range, or is unknown."""


class InvalidExposure(ConfigurationError):
    """Something was exposed that cannot be called."""


class Unserializable(BackwaterError, TypeError):
    """A value has no form on the wire; the message names its type and place."""


class CallFailed(BackwaterError):
    """A call gave no result.

    Attributes:
        retryable: the client may send the same call again by itself.
        retry_after: seconds that the server asked to wait, or None.
    """

    code: ClassVar[str] = "call_failed"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "The call failed"
    retryable: bool = False
    retry_after: float | None = None

    def __init__(self, detail: str = "", **extra: Any) -> None:
        super().__init__(detail or self.title)
        self.extra: Mapping[str, Any] = extra

    @property
    def detail(self) -> str:
        """What happened, as one sentence."""
        return str(self.args[0])


class Unreachable(CallFailed, ConnectionError):
    """The server could not be reached; the call was not sent."""

    code = "unreachable"
    title = "The server could not be reached"
    retryable = True


class TLSFailed(Unreachable):
    """The TLS handshake failed: a certificate was not accepted, or there is no common version."""

    code = "tls_failed"
    title = "The TLS handshake failed"
    retryable = False


class OutcomeUnknown(CallFailed):
    """The call was sent and no answer came: the function may or may not have run."""

    code, status, title = "outcome_unknown", 409, "Nobody can tell whether the function ran"

    #: An attempt heard nothing for `recv_timeout`: the function may just take long, so the attempt does not count.
    silent: bool = False


class DeadlineExceeded(CallFailed, TimeoutError):
    """The time given to the call is over."""

    code, status, title = "deadline_exceeded", 504, "The time given to the call is over"


class Unverified(CallFailed):
    """An answer came that cannot be shown to be the server's; nothing in it was used."""

    code = "unverified"
    title = "The answer could not be verified"
    retryable = True


class ResponseUnsigned(Unverified):
    """The answer carries no signature, or one by another key."""

    code = "response_unsigned"
    title = "The answer is not signed by the server's key"

    #: What the unsigned answer claims to be; a hint to a person, never acted upon.
    hint: Refused | None = None


class ResponseAltered(Unverified):
    """The answer's signature or digest does not fit its head or body."""

    code = "response_altered"
    title = "The answer was altered on its way"


class ResponseMismatched(Unverified):
    """The answer is genuine, and it answers another request."""

    code = "response_mismatched"
    title = "The answer belongs to another request"


class ResponseUndecodable(Unverified):
    """The answer is genuine and cannot be decoded within the client's limits."""

    code = "response_undecodable"
    title = "The answer cannot be decoded"
    retryable = False


class Refused(CallFailed):
    """The server refused the call; the function did not run."""

    code = "refused"
    status = 400
    title = "The server refused the call"


# The signature -------------------------------------------------------------------------------------------------------


class SignatureMissing(Refused):
    code, status, title = "signature_missing", 401, "The request carries no signature with the label bw"


class SignatureMalformed(Refused):
    code, status, title = "signature_malformed", 401, "The signature's parameters cannot be read"


class SignatureIncomplete(Refused):
    code, status, title = "signature_incomplete", 401, "The signature does not cover all it has to"


class SignatureInvalid(Refused):
    code, status, title = "signature_invalid", 401, "The signature does not fit the request"


class UnknownKey(Refused):
    code, status, title = "unknown_key", 401, "The key that signed the request is not known here"


class KeyNotValid(Refused):
    code, status, title = "key_not_valid", 401, "The key is not valid yet, or not any more"


class SignatureStale(Refused):
    code, status, title = "signature_stale", 401, "The signature is too old"
    retryable = True


class SignatureFromFuture(Refused):
    code, status, title = "signature_from_future", 401, "The signature was made in the future"
    retryable = True


class WrongAuthority(Refused):
    code, status, title = "wrong_authority", 421, "The request was signed for another server"


class Replayed(Refused):
    code, status, title = "replayed", 409, "This very request was received before"
    retryable = True


class MemoryFull(Refused):
    code, status, title = "memory_full", 503, "The server cannot remember more requests of this key now"
    retryable = True


# The message ---------------------------------------------------------------------------------------------------------


class RequestMalformed(Refused):
    code, status, title = "request_malformed", 400, "The request cannot be read"


class PathNotFound(Refused):
    code, status, title = "path_not_found", 404, "Nothing is served at this path"


class MethodNotAllowed(Refused):
    code, status, title = "method_not_allowed", 405, "Only POST is served here"


class LengthRequired(Refused):
    code, status, title = "length_required", 411, "The request needs a Content-Length"


class BodyTooLarge(Refused):
    code, status, title = "body_too_large", 413, "The body is larger than the limit"


class UnsupportedMediaType(Refused):
    code, status, title = "unsupported_media_type", 415, "The body's media type is not served here"


class UnsupportedEncoding(Refused):
    code, status, title = "unsupported_encoding", 415, "The body's content encoding is not served here"


class NotAcceptable(Refused):
    code, status, title = "not_acceptable", 406, "No media type that the client accepts is served here"


class DigestMismatch(Refused):
    code, status, title = "digest_mismatch", 400, "The body changed on its way: its digest differs"
    retryable = True


class BodyUndecodable(Refused):
    code, status, title = "body_undecodable", 400, "The body cannot be decoded"


class NestedTooDeep(Refused):
    code, status, title = "nested_too_deep", 400, "The body is nested deeper than the limit"


# The call ------------------------------------------------------------------------------------------------------------


class UnknownModule(Refused):
    code, status, title = "unknown_module", 404, "No such module is exposed"


class UnknownFunction(Refused):
    code, status, title = "unknown_function", 404, "The module has no such function"


class NotExposed(Refused):
    code, status, title = "not_exposed", 403, "The function exists and is not exposed"


class NotInScope(Refused):
    code, status, title = "not_in_scope", 403, "The key may not call this function"


class InvalidArguments(Refused):
    code, status, title = "invalid_arguments", 422, "The arguments do not fit the function"


class IdempotencyConflict(Refused):
    code, status, title = "idempotency_conflict", 422, "The idempotency key was used for another call"


class AlreadySettled(Refused):
    code, status, title = "already_settled", 409, "The caller has already settled this call"


class Draining(Refused):
    code, status, title = "draining", 503, "The server is shutting down"
    retryable = True


class Overloaded(Refused):
    code, status, title = "overloaded", 503, "The server has as many calls as it can hold"
    retryable = True


# The broker ----------------------------------------------------------------------------------------------------------


class StoreError(Refused):
    """The broker was asked for what it cannot do; it did nothing. Raised by a function, it travels as it is."""

    code, status, title = "store_error", 409, "The broker cannot do that"


class UnknownQueue(StoreError):
    code, status, title = "unknown_queue", 404, "There is no queue of that name"


class UnknownExchange(StoreError):
    code, status, title = "unknown_exchange", 404, "There is no exchange of that name"


class QueueNotInScope(StoreError):
    code, status, title = "queue_not_in_scope", 403, "The key may not use this queue"


class DeclarationConflict(StoreError):
    code, status, title = "declaration_conflict", 409, "What has that name is of another kind, or another's"


class SessionGone(StoreError):
    code, status, title = "session_gone", 410, "The session is not open any more; what it held has gone back"


class SessionTaken(StoreError):
    code, status, title = "session_taken", 409, "The session is open and another's"


class MalformedBatch(StoreError):
    code, status, title = "malformed_batch", 422, "A packed batch of messages cannot be read"


class MessageTooLarge(StoreError):
    code, status, title = "message_too_large", 413, "The message is larger than the broker could hand out again"


class StorageFailed(StoreError):
    code, status, title = "storage_failed", 503, "The broker's medium failed; nothing was done"
    retryable = True


# Tasks ---------------------------------------------------------------------------------------------------------------


class TaskError(CallFailed):
    """A task ended, and not by what its function gave or raised."""

    code, status, title = "task_error", 500, "The task ended without a result"


class TaskRevoked(TaskError):
    code, status, title = "task_revoked", 410, "The task was revoked"


class TaskExpired(TaskError):
    code, status, title = "task_expired", 410, "The task had expired before a worker began it"


class TaskLost(TaskError):
    code, status, title = "task_lost", 500, "The workers that ran the task died, time and again"


class TaskRejected(TaskError):
    code, status, title = "task_rejected", 500, "The task was put aside, or dropped"


class TaskNotAccepted(TaskError):
    code, status, title = "task_not_accepted", 500, "The broker did not take the task"


class UpstreamFailed(TaskError):
    code, status, title = "upstream_failed", 424, "A task whose result it needs has failed"


class TimeLimitExceeded(TaskError):
    code, status, title = "time_limit_exceeded", 504, "The task ran longer than it may"


class SoftTimeLimitExceeded(TaskError):
    """Raised inside a task that runs longer than its soft limit: there is time to tidy up until the hard one."""

    code, status, title = "soft_time_limit_exceeded", 504, "The task ran longer than its soft limit"


class MaxRetriesExceeded(TaskError):
    code, status, title = "max_retries_exceeded", 500, "The task asked to run again, and has no retry left"


class OutboxFull(CallFailed):
    code, status, title = "outbox_full", 507, "The sender's own outbox is full; nothing was sent"


# After the run -------------------------------------------------------------------------------------------------------


class ResultUnserializable(CallFailed):
    """The function ran; its result has no form on the wire."""

    code, status, title = "result_unserializable", 500, "The function's result has no form on the wire"


class ResultTooLarge(CallFailed):
    """The function ran; its result is larger than the limit."""

    code, status, title = "result_too_large", 500, "The function's result is larger than the limit"


class InternalError(CallFailed):
    """The server failed by a fault of its own; its log says more."""

    code, status, title = "internal_error", 500, "The server failed by a fault of its own"


class RemoteError(CallFailed):
    """The function ran and raised.

    Attributes:
        type: the exception's class name, qualified by its module unless that is `builtins`.
        message: its text.
        traceback: the remote traceback as text, or None where the server keeps it to itself.
        exception_args: the exception's own arguments where they could be encoded, else None.
    """

    code, status, title = "remote_exception", 500, "The function raised an exception"

    def __init__(
        self,
        detail: str = "",
        *,
        type: str = "Exception",
        message: str = "",
        traceback: str | None = None,
        exception_args: tuple[Any, ...] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail or (f"{type}: {message}" if message else type), **extra)
        self.type = type
        self.message = message
        self.traceback = traceback
        self.exception_args = exception_args
        if traceback is not None:
            # Python prints notes below the exception: whoever does not catch it sees what happened, and where.
            self.add_note(f"The remote traceback:\n{traceback.rstrip()}")


class ErlangError(RemoteError):
    """What a function of a backwater node raised: `error:Reason`, `exit:Reason` or `throw:Reason`.

    Raise it in a function of yours to give an Erlang caller just that exception.

    Attributes:
        error_class: `error`, `exit` or `throw`.
        reason: the term.
        stack: frames `(module, function, arity or arguments, properties)`, the innermost first; often empty.
    """

    code, title = "erlang_exception", "The function raised an exception on a node of Erlang's backwater"

    def __init__(
        self, detail: str = "", *, reason: Any, error_class: str = "error", stack: Sequence[Any] = (), **more: Any
    ) -> None:
        if error_class not in ("error", "exit", "throw"):
            raise ValueError(f"error_class is error, exit or throw, not {error_class!r}")
        super().__init__(detail or f"{error_class}: {reason!r}", **more)
        self.error_class = error_class
        self.reason = reason
        self.stack = tuple(stack)

    def __reduce__(self) -> Any:
        # By default it would be made of `detail` alone when unpickled, in a pool of processes say.
        return _unpickled, (type(self), self.args), self.__dict__


def _unpickled(kind: type[ErlangError], args: tuple[Any, ...]) -> ErlangError:
    return kind.__new__(kind, *args)


def _family(base: type[CallFailed]) -> list[type[CallFailed]]:
    return [base, *(found for child in base.__subclasses__() for found in _family(child))]


#: The closed table of what may cross the wire: code -> class.
WIRE_ERRORS: dict[str, type[CallFailed]] = {error.code: error for error in _family(Refused)}
WIRE_ERRORS |= {OutcomeUnknown.code: OutcomeUnknown, DeadlineExceeded.code: DeadlineExceeded}
WIRE_ERRORS |= {ResultUnserializable.code: ResultUnserializable, ResultTooLarge.code: ResultTooLarge}
WIRE_ERRORS |= {error.code: error for error in _family(TaskError)}
WIRE_ERRORS |= {InternalError.code: InternalError, RemoteError.code: RemoteError}
