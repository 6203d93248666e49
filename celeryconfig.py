"""Every Celery setting, route and schedule. Imports nothing of this project.

Messages carry one id and may arrive twice or never: the job row in PostgreSQL is the truth, the message a
hint, and the sweep sends again what nobody finished. Every task is therefore idempotent.
"""

import os

from celery.schedules import crontab
from kombu import Exchange, Queue

broker_url = os.environ["BROKER_URL"]
broker_connection_retry_on_startup = True
task_ignore_result = True  # no result backend: the outcome of a job is its row
task_publish_retry = False  # a broker that is away costs the caller nothing; the sweep sends later
task_serializer = "json"
accept_content = ["json"]

task_acks_late = True  # acknowledged after the run: a killed worker's message comes back
task_retry_on_worker_lost = True  # bounded by max_retries, unlike a plain reject
task_reject_on_worker_lost = True  # where even that retry cannot be sent
task_acks_on_failure = True
task_acks_on_timeout = True
task_track_started = True
task_soft_time_limit, task_time_limit = 540, 600
_CALL = {"soft_time_limit": 60, "time_limit": 90}  # of somebody else's server
task_annotations = {"kairos.ingest": _CALL, "kairos.notify": _CALL}
worker_prefetch_multiplier = 1
worker_max_tasks_per_child = 2000
worker_soft_shutdown_timeout = 10.0
worker_cancel_long_running_tasks_on_connection_loss = True
worker_send_task_events = True  # Flower
task_send_sent_event = True
worker_hijack_root_logger = False

visibility_timeout = float(
    os.environ.get("KAIROS_VISIBILITY_SECONDS", "900")
)  # must exceed task_time_limit, or a long task runs for ever
broker_transport_options = {
    "visibility_timeout": visibility_timeout,
    "unacked_restore_interval": 5,  # without these two the broker looks only every 100 s
    "unacked_restore_throttle": 1,
    "socket_timeout": 10,
    "socket_connect_timeout": 1,
    "health_check_interval": 10,
}

task_default_queue = "upkeep"
task_routes = {
    "kairos.ingest": {"queue": "ingest"},
    "kairos.refit": {"queue": "refit"},
    "kairos.fit_part": {"queue": "fit"},
    "kairos.export": {"queue": "export"},
    "kairos.expire_exports": {"queue": "upkeep"},
    "kairos.sweep": {"queue": "upkeep"},
    "kairos.clear_fit_parts": {"queue": "upkeep"},
    "kairos.close_stale_windows": {"queue": "upkeep"},
    "kairos.enter_protocols": {"queue": "upkeep"},
    "kairos.note_configuration": {"queue": "upkeep"},
    "kairos.nightly": {"queue": "upkeep"},
    "kairos.night": {"queue": "upkeep"},
    "kairos.watch": {"queue": "upkeep"},
    "kairos.notify": {"queue": "upkeep"},
}
_names = sorted({route["queue"] for route in task_routes.values()})
task_queues = [Queue(name, Exchange(name), name) for name in _names]  # for Flower, before a worker answers it

timezone = "UTC"
enable_utc = True
beat_max_loop_interval = 1
beat_cron_starting_deadline = 3600
_sweep = float(os.environ.get("KAIROS_SWEEP_SECONDS", "30"))
_watch = float(os.environ.get("KAIROS_WATCH_SECONDS", "60"))
beat_schedule = {
    "send what nobody finished": {
        "task": "kairos.sweep",
        "schedule": _sweep,
        "options": {"expires": _sweep},
    },
    "delete what dead fits left": {
        "task": "kairos.clear_fit_parts",
        "schedule": _sweep,
        "options": {"expires": _sweep},
    },
    "look for what did not happen": {
        "task": "kairos.watch",
        "schedule": _watch,
        "options": {"expires": _watch},
    },
    "let protocols come in force": {
        "task": "kairos.enter_protocols",
        "schedule": _sweep,
        "options": {"expires": _sweep},
    },
    "note the configuration": {
        "task": "kairos.note_configuration",
        "schedule": _watch,
        "options": {"expires": _watch},
    },
    "close windows that nobody ended": {
        "task": "kairos.close_stale_windows",
        "schedule": 300.0,
        "options": {"expires": 300},
    },
    "see to the studies whose night has come": {
        "task": "kairos.nightly",
        "schedule": 300.0,
        "options": {"expires": 300},
    },
    "delete old exports": {"task": "kairos.expire_exports", "schedule": crontab(minute=30, hour=4)},
}
