"""Writes docs/openapi.json, docs/errors.md, protocols/*.json and the table of settings in README.md."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pydantic.fields import FieldInfo

from algorithm.trial.decision_time import TIME_OF_DAY, UTC_OFFSET
from algorithm.trial.designs import DESIGNS
from algorithm.trial.protocol import default_document
from api.app import DOMAINS
from api.core import openapi
from models.core.jobs import OWN_FAULT
from services.core.refusals import all_faults
from settings import Settings
from settings.others import OTHERS
from settings.values import PREFIX
from workers.trial import ema_client, ema_items, ema_reception

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"
PROTOCOLS = FOLDER.parent / "protocols"
# HTTP status by error_code in that service, read from its source
MIWAVES = {
    **dict.fromkeys((0, 1, 2, 5, 10, 107, 109, 207, 208, 303), 401),
    **dict.fromkeys((4, 6, *range(100, 107), 108, *range(200, 207), 209, 210, *range(300, 303)), 202),
    **dict.fromkeys(range(304, 322), 202),
    **dict.fromkeys((400, 401, 402, 404, 406), 500),
    7: 404,
    8: 500,
    9: 200,
    11: 403,
}
INTERNAL_THERE = {
    9: "the token could not be revoked",
    107: "the participant could not be stored",
    109: "the participant could not be stored",
    204: "the reward could not be computed",
    205: "the state could not be computed",
    206: "the action could not be computed",
    207: "any other error",
    208: "any other error",
    400: "/update_parameters, /update_hyperparameters: the tables could not be written to files",
    401: "/update_parameters: the policy could not be stored",
    402: "/update_parameters, /update_hyperparameters: any other error",
    404: "/update_parameters: the posterior could not be computed",
    406: "/update_parameters: the policy could not be read",
}
OTHERWISE_THERE = {
    302: "the participant has ended the trial",
    303: "any other error of /end_decision_window",
    320: "any other error while the survey data was fetched or stored",
    321: "the learning row could not be added",
}
WINDOWS = {
    ema_client.SAYS_FAIL: "The back end says `fail` or `failure`, answers 401 or 403, or sends no `ema_data`.",  # noqa: E501
    ema_client.NO_DATA: "The back end has no data for the window.",
    ema_reception.TWO_ITEMS: "Two different items for one decision.",
    ema_reception.UNKNOWN_RID: "The `rid` is no decision of this participant.",
    ema_client.UNREACHABLE: (
        "The back end is not reachable, not allowed, too slow, too long (4 MB, 1,000 items), or not "
        "understood: no JSON, a name twice in an object, neither `success` nor `fail`."
    ),
    OWN_FAULT: "The service itself failed; its log has the reason.",
}
DISCREPANCIES = {
    TIME_OF_DAY: "`decision_time` and the parity of the index disagree on morning or evening.",
    UTC_OFFSET: "The offset of `decision_time` is not that of the participant's zone.",
}
HEAD = """# Error codes

Written by `python -m docs.generate` from the code; a test keeps it current.

Every failure is `{"status": "fail", "message": ..., "error_code": ...}`, with `errors` (`field`, `message`)
where fields are at fault. The last column is the HTTP status that the MiWaves RL service gives with the same
number, read from its public source (StatisticalReinforcementLearningLab/miwaves_rl_service at d498071), "-"
where it has no such number.

| error_code | HTTP | meaning | MiWaves |
|---:|---:|---|---:|
"""
NOT_GIVEN = """
## Numbers of the MiWaves service that this one does not give

What fails inside the service is 503 with 907 while the database is away, and 500 with 909 otherwise.

| error_code | meaning there | MiWaves |
|---:|---|---:|
"""
OTHERWISE = """
## Numbers that mean something else in the MiWaves service

| error_code | meaning there | MiWaves |
|---:|---|---:|
"""
INGEST = """
## Codes of windows, jobs and discrepancies

They come without an HTTP status: /end_decision_window has answered 202 long before. They stand as `code` at a
window and its job (`GET /windows?state=failed`, `GET /jobs/<id>`), or at a discrepancy. The MiWaves service
gives those from 304 to 319 in the answer of /end_decision_window itself, with 202.

| code | meaning |
|---:|---|
"""


def openapi_json() -> str:
    """Return the text of docs/openapi.json."""
    return json.dumps(openapi.document(DOMAINS), indent=1, ensure_ascii=False) + "\n"


def protocol_json(name: str) -> str:
    """Return the text of a protocol's file: its complete document."""
    return json.dumps(default_document(name), indent=2) + "\n"


def errors_md() -> str:
    """Return the text of docs/errors.md, the page of all error codes."""
    faults = (
        (fault.code, fault.status, fault.message.replace("<", "&lt;"), MIWAVES.get(fault.code, "-"))
        for fault in all_faults()
    )
    not_given = ((code, meaning, MIWAVES[code]) for code, meaning in INTERNAL_THERE.items())
    otherwise = ((code, meaning, MIWAVES[code]) for code, meaning in OTHERWISE_THERE.items())
    fields = defaultdict(list)
    item_fields = list(ema_items.Item.model_fields)
    answers = [name for design in DESIGNS.values() for name in design.answers]
    for name in [item_fields[0], *answers, *item_fields[1:]]:  # in the order in which an item lists them
        fields[ema_items.code_of(name)].append(f"`{name}`")
    items = {code: f"{', '.join(names)}: missing, wrong, or not as issued." for code, names in fields.items()}
    ingest = sorted((items | WINDOWS | DISCREPANCIES).items())
    page = HEAD + _lines(faults) + NOT_GIVEN + _lines(not_given)
    return page + OTHERWISE + _lines(otherwise) + INGEST + _lines(ingest)


def _lines(rows: Iterable[tuple[object, ...]]) -> str:
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def settings_table() -> str:
    """README's table of settings: the name, the default and the meaning of each."""
    rows = [
        (str(field.validation_alias or f"{PREFIX}{name.upper()}"), _shown(field), field.description)
        for name, field in Settings.model_fields.items()
    ]
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    lines += [f"| `{name}` | {default} | {meaning} |" for name, default, meaning in [*rows, *OTHERS]]
    return "\n".join(lines)


def _shown(field: FieldInfo) -> str:
    """A default as the table shows it."""
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "shown" in extra:
        return str(extra["shown"])
    if field.is_required():
        return "needed"
    if field.default in ("", (), None):
        return "none"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    return f"`{field.default}`" if isinstance(field.default, str) else str(field.default)


def readme(text: str) -> str:
    """README.md with the present table of settings."""
    start, end = "<!-- settings -->\n", "\n<!-- /settings -->"
    before, after = text.partition(start)[0], text.partition(end)[2]
    return f"{before}{start}{settings_table()}{end}{after}"


if __name__ == "__main__":
    (FOLDER / "openapi.json").write_text(openapi_json(), encoding="utf-8")
    for name in DESIGNS:
        (PROTOCOLS / f"{name}.json").write_text(protocol_json(name), encoding="utf-8")
    (FOLDER / "errors.md").write_text(errors_md(), encoding="utf-8")
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")
