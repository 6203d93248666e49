"""The tasks of oversight. Routes, limits and schedules stand in celeryconfig.py."""

from models.core.jobs import NIGHT
from workers.core.celery_app import app
from workers.core.kinds import job_task
from workers.oversight import configuration, night, notifications, sentry, watchdog


@app.task(name="kairos.note_configuration")
def note_configuration() -> None:
    """Note the settings of this worker in the audit of every study that does not have them yet."""
    configuration.note_changes()


@app.task(name="kairos.watch")
def look_for_incidents() -> None:
    """Look at every study once, record incidents and send their notifications."""
    watchdog.run()


@app.task(name="kairos.notify")
def send_notification(notification_id: int) -> None:
    """Deliver one notification."""
    notifications.run(notification_id)


@job_task(NIGHT)
def check_study(job_id: int) -> None:
    """Check one study's statistics, audit and recent decisions."""
    night.run(job_id)


@app.task(name="kairos.nightly")
def nightly() -> None:
    """Begin the night of every study in which it has come."""
    night.begin()


sentry.guard_beat()
