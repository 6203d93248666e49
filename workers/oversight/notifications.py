"""Notifications on their way out, by webhook and e-mail; each is a row that is claimed and tried again."""

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

from algorithm.core.backoff import LADDERS, backoff
from models.core.session import transact
from models.oversight import notifications
from models.oversight.notifications import EMAIL, WEBHOOK, Notification
from settings import settings
from workers.core import outgoing
from workers.core.celery_app import log, send
from workers.core.outgoing import NotAllowed

LADDER = LADDERS["notification"]
CLAIM = timedelta(minutes=15)  # longer than a task may take: no notification is sent by two at once
BATCH = 100  # notifications that are sent at one look
DIED = "who sent it died at the last try"


class NotDelivered(Exception):
    """The refusal of a notification by the other side; the message quotes nothing of its answer."""


def channels() -> list[str]:
    """Return the channels that are set up in this deployment."""
    current = settings()
    return [WEBHOOK] * bool(current.webhook_url) + [EMAIL] * bool(current.smtp_host)


def send_due(now: datetime) -> None:
    """Send the id of every notification that is due to the workers."""
    for notification_id in _due(now):
        send("notify", notification_id)  # an id that is sent twice is harmless: the second claim fails


def deliver_due(now: datetime) -> None:
    """Deliver every notification that is due in this process, where the workers or beat are gone."""
    for notification_id in _due(now):
        run(notification_id)


def _due(now: datetime) -> list[int]:
    """Return the ids of notifications that are due, also of those whose sender died."""
    transact(notifications.put_back, now, CLAIM, LADDER.tries, DIED)
    return transact(notifications.due, now, BATCH)


def run(notification_id: int) -> None:
    """Deliver one notification.

    1. Claim it.
    2. Deliver it on its channel, with no transaction open.
    3. Write down that it was delivered. After any error it is tried again later; after the last try it fails.
    """
    claimed = transact(notifications.claim, notification_id, datetime.now(UTC))
    if claimed is None:
        return
    try:
        DELIVER[claimed.channel](claimed)
    except Exception as failure:
        # messages of other errors quote the other side, and what it was sent
        is_ours = isinstance(failure, NotDelivered | NotAllowed)
        reason = str(failure) if is_ours else f"not delivered: {type(failure).__name__}"
        log.warning("notification not delivered", notification_id=claimed.id, reason=reason)
        now = datetime.now(UTC)
        if claimed.attempts >= LADDER.tries:
            transact(notifications.fail, claimed, now, reason)
        else:
            pause = backoff(claimed.attempts, settings().retry_seconds, LADDER.longest)
            transact(notifications.postpone, claimed, now + timedelta(seconds=pause), reason)
    else:
        transact(notifications.finish, claimed, datetime.now(UTC))


def signature(secret: str, moment: int, body: bytes) -> str:
    """Return the header that proves who sent a body and when.

    It is t=seconds,v1=digest, where digest is HMAC-SHA256 of "seconds.body" in hexadecimal digits.
    """
    digest = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256)
    return f"t={moment},v1={digest.hexdigest()}"


def post_to_webhook(claimed: Notification) -> None:
    """POST a notification, signed; an answer other than 2xx is a refusal. Raises NotDelivered."""
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


def send_email(claimed: Notification) -> None:
    """Hand a notification to the mail server."""
    mail, server = email(claimed), settings()
    context = ssl.create_default_context()
    with outgoing.connection(server.smtp_host, server.smtp_port) as link:
        if server.smtp_tls == "tls":
            wrapped: socket.socket = context.wrap_socket(link, server_hostname=server.smtp_host)
        else:
            wrapped = link
        with closing(_Conversation(server.smtp_host, wrapped)) as conversation:
            if server.smtp_tls == "starttls":
                conversation.starttls(context=context)
            if server.smtp_user:
                conversation.login(server.smtp_user, server.smtp_password)
            conversation.send_message(mail)
            with suppress(OSError):
                conversation.putcmd("QUIT")  # its answer is not waited for: the mail is accepted


class _Conversation(smtplib.SMTP):
    """A conversation with a mail server over a connection that is open already."""

    def __init__(self, host: str, link: socket.socket) -> None:
        self._link = link
        super().__init__(host)

    def _get_socket(self, *_: object) -> socket.socket:
        return self._link


def email(claimed: Notification) -> EmailMessage:
    """Return a notification as an e-mail, one line for each field of its message."""
    server, message = settings(), claimed.message
    study = "the deployment" if message["study_id"] is None else f"study {message['study_id']}"
    kind = message["kind"].replace("_", " ")
    mail = EmailMessage()
    mail["Subject"] = f"[Kairos] {message['level']}: {kind}, {study} ({message['change']})"
    mail["From"], mail["To"] = server.smtp_from, ", ".join(server.smtp_to)
    mail["Message-ID"] = f"<kairos-{claimed.id}@{server.smtp_from.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    values = {
        name: json.dumps(value) if isinstance(value, dict) else value for name, value in message.items()
    }
    mail.set_content("".join(f"{name}: {value}\n" for name, value in values.items()))
    return mail


DELIVER: Mapping[str, Callable[[Notification], None]] = {WEBHOOK: post_to_webhook, EMAIL: send_email}
