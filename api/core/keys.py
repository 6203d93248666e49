"""Fresh keys, and stored secrets moved under the newest. `python -m api.core.keys new` needs no settings."""

import secrets

from cryptography.fernet import Fernet
from sqlalchemy.orm import Session

from api.core.cli import Commands, print_json
from models.core import audit
from models.core.acts import CoreAct
from models.core.base import Base
from models.core.encryption import encrypt_anew, fingerprint
from models.core.session import transact
from settings import settings

commands = Commands("keys", help="Signing keys and encryption keys.")


@commands.command("new", with_appcontext=False)
def new() -> None:
    """Print fresh keys for KAIROS_SIGNING_KEYS and KAIROS_SECRETS_KEYS, and a KAIROS_REGISTRATION_SECRET."""
    print_json(
        signing_key=secrets.token_urlsafe(48),
        secrets_key=Fernet.generate_key().decode(),
        registration_secret=secrets.token_urlsafe(48),
    )


@commands.command("rotate", with_appcontext=False)
def rotate() -> None:
    """Encrypt every stored secret anew, under the first of KAIROS_SECRETS_KEYS."""

    def encrypt(session: Session) -> int:
        count = encrypt_anew(session, Base.metadata)
        keys = [fingerprint(key) for key in settings().secrets_keys]
        audit.note_everywhere(session, CoreAct.ROTATE_KEYS, {"secrets": count, "secrets_keys": keys})
        return count

    print_json(secrets=transact(encrypt))


if __name__ == "__main__":
    commands()
