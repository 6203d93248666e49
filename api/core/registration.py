"""Registration tokens: each study has its own, of its name and the deployment's secret; none is stored."""

import base64
import hmac

from settings import settings


def token_of(study: str) -> str:
    """What lets clients into the study of this name: base64url, without padding."""
    secret, message = settings().registration_secret, f"registration|{study}"
    digest = hmac.digest(secret.encode(), message.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def admits(study: str, token: str | None) -> bool:
    """Whether the token is that of the study; takes as long whatever it is."""
    return hmac.compare_digest((token or "").encode(), token_of(study).encode())
