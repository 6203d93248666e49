"""What the columns of the tables mean, for the data dictionary: by `table.column`, or by a name that means
the same in every table. A test asks for a line for every column that is exported."""

from typing import NamedTuple


class Meaning(NamedTuple):
    """What a column holds, in which unit and range."""

    text: str
    unit: str = ""
    range: str = ""


UTC = "UTC"
REWARD = "reward units"
MEANINGS: dict[str, Meaning] = {
    "id": Meaning("number of the row", range=">= 1"),
    "created_at": Meaning("when the row was stored, by the database's clock (the transaction's begin)", UTC),
    "participant_id": Meaning("opaque number of the participant", range=">= 1"),
    "decision_id": Meaning("rid: id of the decision", range=">= 1"),
    "decision_index": Meaning("number of the decision point, from 1", range=">= 1"),
    "protocol_id": Meaning("id in `protocols`", range=">= 1"),
    "protocol_hash": Meaning("SHA-256 of the canonical protocol document", "hexadecimal"),
    "code_version": Meaning("version and digest of the code that computed the row"),
    "feature_version": Meaning("changes when the meaning of a state variable or feature changes"),
    "policy_id": Meaning("number of the policy in its study; 0 is the prior", range=">= 0"),
    "timezone": Meaning("IANA time zone"),
    "reason": Meaning("why, in words"),
    "row_seq": Meaning("order in which learning rows came to be", range=">= 0"),
    "protocols.looks_back_days": Meaning(
        "how many days of messages its safety envelope looks back on", "days"
    ),
    "protocols.effective_at": Meaning("when it came, or is to come, in force", UTC),
    "decisions.id": Meaning("rid: the decision's number", range=">= 1"),
    "decisions.policy_id": Meaning("policy whose probability this is; null at F4 and none", range=">= 0"),
    "decisions.state": Meaning("state variables in the order of the feature version; null at F4"),
    "decisions.advantage_mean": Meaning("posterior mean of the advantage of action 1 in the state", REWARD),
    "decisions.advantage_variance": Meaning("its variance", f"{REWARD} squared", ">= 0"),
    "decisions.act_prob": Meaning("probability of action 1, after all rules", range="[0, 1]"),
    "decisions.seed": Meaning("action is 1 where seed / 2^53 < act_prob", range="[0, 2^53)"),
    "decisions.action": Meaning("1 sent, 0 not", range="0, 1"),
    "decisions.fallback_level": Meaning(
        "the rung of the ladder that decided; none where not available", range="F0, F1, F2, F3, F4, none"
    ),
    "decisions.available": Meaning("whether randomisation was allowed"),
    "decisions.unavailable_rule": Meaning(
        "the rule that forbade it; null where available",
        range="app, quiet_hours, cool_down, daily_cap, weekly_cap",
    ),
    "decisions.answers": Meaning("the answers that the first call of this point told"),
    "decisions.reward": Meaning(
        "what those answers report: the outcome of an earlier action; null where they report none", REWARD
    ),
    "decisions.evening": Meaning("time of day that was decided with"),
    "decisions.decision_time": Meaning("when the point was, as the app told, else act_gen_timestamp", UTC),
    "decisions.utc_offset_minutes": Meaning("of the participant's wall clock then", "minutes east of UTC"),
    "decisions.act_gen_timestamp": Meaning("when the action was drawn, by the server's clock", UTC),
    "participants.id": Meaning("opaque number of the participant", range=">= 1"),
    "participants.phase": Meaning("how far the participant is in the trial"),
    "participants.decision_index": Meaning("how many decision points are over", range=">= 0"),
    "participants.corrections": Meaning(
        "how many outcomes the study's back end told or corrected after the decision", range=">= 0"
    ),
    "participants.rl_start_date": Meaning("first day of the trial, local"),
    "participants.rl_end_date": Meaning("last day of the trial, local"),
    "participants.consent_start_date": Meaning("first day of the consent, local"),
    "participants.consent_end_date": Meaning("last day of the consent, local"),
    "participants.morning_notification_time_start": Meaning(
        "seven morning notification times, Monday first", "HHMM, local", "0 to 2359"
    ),
    "participants.evening_notification_time_start": Meaning(
        "seven evening notification times, Monday first", "HHMM, local", "0 to 2359"
    ),
    "participant_zones.since": Meaning("when the zone was told", UTC),
    "participant_zones.decision_index": Meaning(
        "point from which the zone holds; 0 is enrolment", range=">= 0"
    ),
    "windows.kind": Meaning("how the window ended: by the app, by nobody, or nothing was decided"),
    "windows.state": Meaning("its survey data: awaited (`ended`), stored, not to be had, or none (`missed`)"),
    "windows.code": Meaning("why the survey data could not be had; see docs/errors.md"),
    "windows.query_start": Meaning("begin of the span asked for in the study's back end", UTC),
    "windows.query_end": Meaning("end of that span", UTC),
    "windows.ended_at": Meaning("when the window was over, by the server's clock", UTC),
    "windows.ingested_at": Meaning("when its survey data were stored", UTC),
    "answers.version": Meaning("number of the version of the decision's answers", range=">= 1"),
    "answers.source": Meaning("a later body of the same decision point, or the study's back end"),
    "answers.item": Meaning("the answers as reported, without the person's name"),
    "answers.reward": Meaning("the outcome by these answers, where they may correct it; else null", REWARD),
    "discrepancies.decision_id": Meaning("rid: id of the decision; null where the report fits none"),
    "discrepancies.field": Meaning("the field that differs"),
    "discrepancies.code": Meaning("its error code; see docs/errors.md"),
    "discrepancies.issued": Meaning("what the service had issued, as text"),
    "discrepancies.reported": Meaning(
        "what was reported, as text; where it fits no decision, with the point that was asked for"
    ),
    "learning_rows.outcome": Meaning("outcome of the decision's action, as known when the row came", REWARD),
    "policies.algorithm": Meaning("name of the algorithm"),
    "policies.row_seq": Meaning("the policy contains the learning rows up to this one", range=">= 0"),
    "policies.row_count": Meaning("decisions learnt from", range=">= 0"),
    "policies.statistics_hash": Meaning("SHA-256 of the sufficient statistics", "hexadecimal"),
    "policies.participants": Meaning("ids of the participants in the fit, in the order of the fit"),
    "policies.mean": Meaning("posterior mean of the population's p coefficients", REWARD),
    "policies.covariance": Meaning("their covariance, p x p by rows", f"{REWARD} squared"),
    "policies.sigma_u": Meaning("covariance of participants' deviations, p x p by rows", f"{REWARD} squared"),
    "policies.noise_variance": Meaning("variance of the outcome's noise", f"{REWARD} squared", "> 0"),
    "policies.advantage_mean": Meaning("advantage's mean for who is not in the fit, q values", REWARD),
    "policies.advantage_covariance": Meaning("its covariance, q x q by rows", f"{REWARD} squared"),
    "policies.report": Meaning(
        "how the fit went: evidence, hyper-parameters, largest change of a probability"
    ),
    "policy_blocks.mean": Meaning("posterior mean of the participant's advantage, q values", REWARD),
    "policy_blocks.covariance": Meaning("upper triangle of its covariance, by rows", f"{REWARD} squared"),
    "protocols.version": Meaning("number of the version in its study", range=">= 1"),
    "protocols.document": Meaning("the complete protocol document"),
    "protocols.hash": Meaning("SHA-256 of its canonical form", "hexadecimal"),
    "protocols.history": Meaning("how many earlier points a state looks back on", "decision points", ">= 0"),
    "protocols.author": Meaning("who wrote the version"),
    "participants.removed_row_seq": Meaning(
        "policies of this row_seq or a higher one are not fitted from their rows; null: they count",
        range=">= 1",
    ),
    "audit.seq": Meaning("number of the row in the study's chain", range=">= 1"),
    "audit.client_id": Meaning("number of the account that acted, or in whose name; null: none"),
    "audit.role": Meaning("of the account at that time; operator: command line; service: by itself"),
    "audit.before": Meaning("what the act changed, as it was before"),
    "audit.after": Meaning("as it was afterwards, and what else belongs to the act"),
    "audit.prev_hash": Meaning("hash of row seq - 1; of row 1 the SHA-256 of the study's key", "hexadecimal"),
    "audit.hash": Meaning("SHA-256 of the row's canonical JSON (docs/conduct.md)", "hexadecimal"),
    "proposals.act": Meaning("the act that was proposed, as the audit calls it"),
    "proposals.arguments": Meaning("on what"),
    "proposals.state": Meaning("what has become of it"),
    "proposals.proposed_by": Meaning("number of the account that proposed it"),
    "proposals.expires_at": Meaning("until when it can be approved", UTC),
    "proposals.decided_by": Meaning("number of the account that approved or rejected it"),
    "proposals.decided_at": Meaning("when it was approved or rejected", UTC),
    "audit.participant_id": Meaning("the participant acted on; null: the study as a whole"),
    "audit.act": Meaning("what was done"),
    "incidents.kind": Meaning("what is or was wrong"),
    "incidents.level": Meaning("how bad it is; green once it is over"),
    "incidents.detail": Meaning("ids and numbers as they were last seen"),
    "incidents.first_at": Meaning("when it was first seen", UTC),
    "incidents.last_at": Meaning("when it was last seen", UTC),
    "incidents.count": Meaning("how often it was seen", range=">= 0"),
    "incidents.resolved_at": Meaning("when it was over", UTC),
    "incidents.acknowledged_by": Meaning("number of the account that acknowledged it"),
    "incidents.acknowledged_at": Meaning("when it was acknowledged", UTC),
    "incidents.notices": Meaning("how often somebody was told", range=">= 0"),
    "incidents.notified_level": Meaning("the level last told"),
    "incidents.notified_at": Meaning("when it was last told", UTC),
    "jobs.kind": Meaning("kind of work", range="ingest, refit, night, export"),
    "jobs.state": Meaning("how far it is"),
    "jobs.window_id": Meaning("the window whose survey data it fetches"),
    "jobs.hyperparameters": Meaning("whether a fit was to find hyper-parameters too"),
    "jobs.requests": Meaning("how many requests it does the work of", range=">= 1"),
    "jobs.attempts": Meaning("how often it was claimed", range=">= 0"),
    "jobs.tries": Meaning("claims since it was last queued by hand", range=">= 0"),
    "jobs.run_after": Meaning("not before", UTC),
    "jobs.sent_at": Meaning("when its id last went to the broker", UTC),
    "jobs.claimed_at": Meaning("when it was last claimed", UTC),
    "jobs.finished_at": Meaning("when it was done or failed", UTC),
    "jobs.code": Meaning("why it failed or waits; see docs/errors.md"),
    "jobs.result": Meaning("what came of it"),
}
