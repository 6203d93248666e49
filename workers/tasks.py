"""Every task by its name. Routes, limits and schedules stand in celeryconfig.py."""

from workers import (
    configuration,
    export,
    ingest,
    night,
    notify,
    parts,
    refit,
    sentry,
    upkeep,
    versions,
    watch,
)
from workers.app import app
from workers.claims import alone


@app.task(name="kairos.ingest", max_retries=3)
def ingest_window(job_id: int) -> None:
    """Fetch and store the survey data of one window."""
    alone(job_id, ingest.run)


@app.task(name="kairos.refit", max_retries=3)
def refit_study(job_id: int) -> None:
    """Fit one study's policy to all its rows."""
    alone(job_id, refit.run)


@app.task(name="kairos.fit_part", max_retries=3)
def fit_part(part_id: int) -> None:
    """Do a part of the fit of a large study, for whoever fits it."""
    parts.take(part_id)


@app.task(name="kairos.export", max_retries=3)
def export_study(job_id: int) -> None:
    """Write one study's export."""
    alone(job_id, export.run)


@app.task(name="kairos.expire_exports")
def expire_exports() -> None:
    """Delete the files of old exports."""
    export.expire()


@app.task(name="kairos.sweep")
def sweep() -> None:
    """Put back what dead workers hold and send what nobody took."""
    upkeep.sweep()


@app.task(name="kairos.close_stale_windows")
def close_stale_windows() -> None:
    """End the windows that no app ended in time."""
    upkeep.close_stale_windows()


@app.task(name="kairos.enter_protocols")
def enter_protocols() -> None:
    """Let protocol versions come in force whose time has come."""
    versions.enter_due()


@app.task(name="kairos.note_configuration")
def note_configuration() -> None:
    """Note in the audit under which settings this worker runs."""
    configuration.note_changes()


@app.task(name="kairos.watch")
def look_for_incidents() -> None:
    """Record what did not happen, and have it told."""
    watch.run()


@app.task(name="kairos.notify")
def send_notification(notification_id: int) -> None:
    """Deliver one notification."""
    notify.run(notification_id)


@app.task(name="kairos.night", max_retries=3)
def see_to_study(job_id: int) -> None:
    """Check one study's statistics, audit and recent decisions."""
    alone(job_id, night.run)


@app.task(name="kairos.nightly")
def nightly() -> None:
    """Begin the night of every study in which it has come."""
    upkeep.nightly()


sentry.guard_beat()
