"""The tasks that watch over studies. Routes, limits and schedules stand in celeryconfig.py."""

from workers.core.celery_app import app
from workers.core.claims import alone
from workers.oversight import configuration, night, notifications, sentry, upkeep, watchdog


@app.task(name="kairos.note_configuration")
def note_configuration() -> None:
    """Note in the audit under which settings this worker runs."""
    configuration.note_changes()


@app.task(name="kairos.watch")
def look_for_incidents() -> None:
    """Record what did not happen, and have it told."""
    watchdog.run()


@app.task(name="kairos.notify")
def send_notification(notification_id: int) -> None:
    """Deliver one notification."""
    notifications.run(notification_id)


@app.task(name="kairos.night", max_retries=3)
def see_to_study(job_id: int) -> None:
    """Check one study's statistics, audit and recent decisions."""
    alone(job_id, night.run)


@app.task(name="kairos.nightly")
def nightly() -> None:
    """Begin the night of every study in which it has come."""
    upkeep.nightly()


sentry.guard_beat()
