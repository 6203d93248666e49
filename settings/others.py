"""Variables of the environment that are no settings of the service: of commands, the stack, the rehearsal."""

from typing import NamedTuple


class Variable(NamedTuple):
    """A variable: its name, its default as README shows it, and its meaning."""

    name: str
    default: str
    meaning: str


OTHERS = (
    Variable("KAIROS_EMA_TOKEN", "none", "the back end's bearer token, read by `study create`"),
    Variable(
        "KAIROS_APP_PASSWORD",
        "none",
        "`database grant --app ROLE` creates the role with it; the role exists already where it is not set",
    ),
    Variable("FLOWER_BASIC_AUTH", "made by the stack", "user:password of Flower"),
    Variable("KAIROS_STATE", "`.state`, as root `/var/lib/kairos/...`", "folder of the embedded servers"),
    Variable("KAIROS_API_PORT", "8000 or a free one", "port of the API under `make up` and `make demo`"),
    Variable("KAIROS_FLOWER_PORT", "5555 or a free one", "port of Flower there"),
    Variable("PG_BIN", "the wheel's", "folder with other PostgreSQL binaries"),
    Variable("REHEARSAL_CLIENT", "registers one", "name:password of the rehearsal's client"),
    Variable("REHEARSAL_REGISTRATION_TOKEN", "none", "registration token of the rehearsed study"),
    Variable("REHEARSAL_RESEARCHER", "none", "name:password of an account that may read policies"),
)
