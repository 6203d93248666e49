"""Notifications on their way out: a webhook and e-mail, each claimed, tried and tried again by its row."""

import hashlib
import hmac
import json
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage

from sqlalchemy.orm import Session

from algorithm.core.backoff import LADDERS, backoff
from models.core.session import transact
from models.oversight import notifications
from models.oversight.notifications import EMAIL, WEBHOOK, Notification
from settings import settings
from workers.core import outgoing
from workers.core.celery_app import log, send
from workers.core.outgoing import NotAllowed

LADDER = LADDERS["notification"]
CLAIM = timedelta(minutes=15)  # longer than a task may take: what is being sent is sent by one
BATCH = 100
DIED = "who sent it died at the last try"


class NotDelivered(Exception):
    """The other side did not take a notification; the message says why, without a word of its own."""


def channels() -> list[str]:
    """Where this deployment wants to be told."""
    told = settings()
    return [WEBHOOK] * bool(told.webhook_url) + [EMAIL] * bool(told.smtp_host)


def send_due(now: datetime) -> None:
    """Give every notification that is due to the workers. A message that comes twice finds it claimed."""
    for notification_id in _due(now):
        send("notify", notification_id)


def deliver_due(now: datetime) -> None:
    """Deliver them here, where the workers or the clock that drives them are gone."""
    for notification_id in _due(now):
        run(notification_id)


def _due(now: datetime) -> list[int]:
    def work(session: Session) -> list[int]:
        notifications.put_back(session, now, CLAIM, LADDER.tries, DIED)
        return notifications.due(session, now, BATCH)

    return transact(work)


def run(notification_id: int) -> None:
    """Claim, deliver with no transaction open, write down how it came out: whatever went wrong was a try."""
    claimed = transact(lambda session: notifications.claim(session, notification_id, datetime.now(UTC)))
    if claimed is None:
        return
    try:
        DELIVER[claimed.channel](claimed)
    except Exception as failure:
        reason = _reason(failure)
        log.warning("notification not delivered", notification_id=claimed.id, reason=reason)
        transact(_try_later, claimed, reason, datetime.now(UTC))
    else:
        transact(lambda session: notifications.finish(session, claimed, datetime.now(UTC)))


def _reason(failure: Exception) -> str:
    """Our own words, or a name alone: messages of other errors quote the other side and what it was sent."""
    own = isinstance(failure, NotDelivered | NotAllowed)
    return str(failure) if own else f"not delivered: {type(failure).__name__}"


def _try_later(session: Session, claimed: Notification, reason: str, now: datetime) -> None:
    if claimed.attempts >= LADDER.tries:
        notifications.fail(session, claimed, now, reason)
        return
    pause = backoff(claimed.attempts, settings().retry_seconds, LADDER.longest)
    notifications.postpone(session, claimed, now + timedelta(seconds=pause), reason)


def signature(secret: str, moment: int, body: bytes) -> str:
    """The header that proves who sent a body and when: t=seconds,v1=HMAC-SHA256 of "seconds.body" in hex."""
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256)
    return f"t={moment},v1={digest.hexdigest()}"


def _webhook(claimed: Notification) -> None:
    """POST it, signed; only an answer of 2xx counts. The answer's body is not read."""
    body = json.dumps({"notification_id": claimed.id, **claimed.message}).encode()
    headers = {
        "Content-Type": "application/json",
        "Kairos-Delivery": str(claimed.id),
        "Kairos-Signature": signature(settings().webhook_secret, int(time.time()), body),
    }
    with outgoing.post(settings().webhook_url, headers, data=body) as response:
        status = response.status_code
    if not 200 <= status < 300:
        raise NotDelivered(f"HTTP status {status}")


def _email(claimed: Notification) -> None:
    """Hand it to the mail server."""
    told, mail = settings(), _mail(claimed)
    context = ssl.create_default_context()
    with outgoing.connection(told.smtp_host, told.smtp_port) as link, _server(link, context) as server:
        if told.smtp_tls == "starttls":
            server.starttls(context=context)
        if told.smtp_user:
            server.login(told.smtp_user, told.smtp_password)
        server.send_message(mail)
        with suppress(OSError):
            server.putcmd("QUIT")  # nobody waits for its answer: the mail is taken


def _server(link: socket.socket, context: ssl.SSLContext) -> closing[smtplib.SMTP]:
    told = settings()
    if told.smtp_tls == "tls":
        link = context.wrap_socket(link, server_hostname=told.smtp_host)
    return closing(_Conversation(told.smtp_host, link))


class _Conversation(smtplib.SMTP):
    """With a mail server, over a connection that is there."""

    def __init__(self, host: str, link: socket.socket) -> None:
        self._link = link
        super().__init__(host)

    def _get_socket(self, *_: object) -> socket.socket:
        return self._link


def _mail(claimed: Notification) -> EmailMessage:
    told, message = settings(), claimed.message
    study = "the deployment" if message["study_id"] is None else f"study {message['study_id']}"
    kind = message["kind"].replace("_", " ")
    mail = EmailMessage()
    mail["Subject"] = f"[Kairos] {message['level']}: {kind}, {study} ({message['change']})"
    mail["From"], mail["To"] = told.smtp_from, ", ".join(told.smtp_to)
    mail["Message-ID"] = f"<kairos-{claimed.id}@{told.smtp_from.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("".join(f"{name}: {_shown(value)}\n" for name, value in message.items()))
    return mail


def _shown(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


DELIVER: Mapping[str, Callable[[Notification], None]] = {WEBHOOK: _webhook, EMAIL: _email}
