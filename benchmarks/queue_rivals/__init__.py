"""The rivals of queues.py by name. Nothing of theirs is imported here."""

from __future__ import annotations

from collections.abc import Mapping

from queue_rivals.contract import Rival

#: What is installed for each library, in a virtual environment of its own (arq wants an older redis than the others).
LIBRARIES: dict[str, tuple[str, ...]] = {
    "celery": ("celery[redis]>=5.5,<6", "hiredis"),
    "dramatiq": ("dramatiq[redis]>=2,<3", "hiredis"),
    "huey": ("huey>=3,<4", "redis", "hiredis"),
    "arq": ("arq>=0.26,<1",),
    "taskiq": ("taskiq>=0.11,<1", "taskiq-redis>=1,<2", "hiredis"),
    "rq": ("rq>=2,<4", "hiredis"),
}

#: How our worker is started.
_OURS = ("{bin}/backwater", "worker", "-A", "{module}", "--broker", "{url}", "--secret-file", "{secret}")
_SAFE = (
    "publishing and settling are fsynced before they are answered, and may be repeated; what a killed worker"
    " held runs again within 30 s; nothing accepted is lost by a crash of anyone or by power loss"
)

_REDIS = "Redis as Debian ships it (snapshots, no log) loses at its crash what came since the last snapshot"

RIVALS: dict[str, Rival] = {
    "ours": Rival(
        about="backwater, plain functions in threads; all requests signed",
        module="ours",
        library="",
        service="ours",
        worker=_OURS,
        bulk="app.send_many()",
        guarantee=_SAFE,
        ours=True,
    ),
    "ours-async": Rival(
        about="backwater, coroutines on the worker's loop; all requests signed",
        module="ours_async",
        library="",
        service="ours",
        worker=(*_OURS, "--pool", "async"),
        bulk="app.send_many()",
        guarantee=_SAFE,
        ours=True,
    ),
    "ours-processes": Rival(
        about="backwater, plain functions in one process of the worker; all requests signed",
        module="ours",
        library="",
        service="ours",
        worker=(*_OURS, "--pool", "processes", "--concurrency", "1"),
        bulk="app.send_many()",
        guarantee=_SAFE,
        ours=True,
    ),
    "celery-redis": Rival(
        about="Celery, broker and results in Redis, prefork with one child",
        module="celery_app",
        library="celery",
        service="redis",
        worker=("{bin}/celery", "-A", "{module}", "worker", "-c", "1", "-l", "WARNING"),
        bulk="kombu's batches",
        guarantee="acks before it runs: a worker killed loses what runs, and what it had fetched waits an hour;"
        f" {_REDIS}",
    ),
    "celery-rabbitmq": Rival(
        about="Celery, broker RabbitMQ, results by rpc://, prefork with one child",
        module="celery_app",
        library="celery",
        service="rabbitmq",
        worker=("{bin}/celery", "-A", "{module}", "worker", "-c", "1", "-l", "WARNING"),
        confirms=False,
        bulk="one producer",
        guarantee="persistent messages, but publishing waits for nothing: what is on the way is lost in a cut or crash;"
        " acks before it runs: a worker killed loses what runs; results are not persistent",
    ),
    "dramatiq-redis": Rival(
        about="dramatiq, broker and results in Redis, one process of eight threads",
        module="dramatiq_redis",
        library="dramatiq",
        service="redis",
        worker=("{bin}/dramatiq", "--processes", "1", "{module}"),
        bulk="group().run()",
        guarantee="acks after it ran; what a killed worker held comes back after a minute, by chance of traffic;"
        f" {_REDIS}",
    ),
    "huey-redis": Rival(
        about="huey, queue and results in Redis, one thread",
        module="huey_app",
        library="huey",
        service="redis",
        worker=("{bin}/huey_consumer", "{module}.huey"),
        bulk="map()",
        guarantee=f"taken when popped: a worker killed loses what runs, a lost answer loses a task; {_REDIS}",
    ),
    "huey-sqlite": Rival(
        about="huey, queue and results in a SQLite file of the same machine, one thread, fsync on",
        module="huey_app",
        library="huey",
        service="file",
        worker=("{bin}/huey_consumer", "{module}.huey"),
        bulk="map()",
        guarantee="each task and result is fsynced; taken when popped: a killed worker loses what runs; one machine",
    ),
    "arq": Rival(
        about="arq, queue and results in Redis, ten jobs on one loop",
        module="arq_redis",
        library="arq",
        service="redis",
        worker=("{bin}/arq", "{module}.WorkerSettings"),
        bulk="100 at once with gather()",
        guarantee=f"runs again what a killed worker held, after five minutes; {_REDIS}",
    ),
    "taskiq": Rival(
        about="taskiq, list broker and results in Redis, one worker process",
        module="taskiq_redis_list",
        library="taskiq",
        service="redis",
        worker=("{bin}/taskiq", "worker", "--workers", "1", "{module}:broker"),
        bulk="100 at once with gather()",
        guarantee=f"taken when popped: a worker killed loses all it holds, up to a hundred; {_REDIS}",
    ),
    "rq": Rival(
        about="RQ, queue and results in Redis, a fork for each job",
        module="rq_redis",
        library="rq",
        service="redis",
        worker=("{bin}/rq", "worker", "--url", "{url}"),
        bulk="enqueue_many()",
        guarantee=f"what a killed worker ran is found and failed later, not run again; {_REDIS}",
    ),
}


def chosen(names: str, rivals: Mapping[str, Rival] = RIVALS) -> list[str]:
    """Those of a comma-separated list, all of an empty one. Raises ValueError of an unknown name."""
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(rivals)
    unknown = [name for name in wanted if name not in rivals]
    if unknown:
        raise ValueError(f"no such variant: {', '.join(unknown)}")
    return wanted
