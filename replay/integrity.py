"""The integrity of rows: protocols have their hashes, numbers have no gap, everything has its decision."""

from algorithm.trial.protocol import identity
from replay.decisions import name
from replay.findings import Report
from replay.format.long_table import Row
from replay.known_when import CLOCKS
from replay.tables import Study

KIND = "reference"


def protocols(study: Study, report: Report) -> None:
    """Check that every protocol has its hash and looks back as far as its row says, and that the version in
    force exists."""
    for version in study.tables["protocols"]:
        where = f"protocol {version['id']}"
        protocol = study.protocols[version["id"]]
        if protocol is None:
            report.diverge("protocol", where, "a protocol", "a document that no protocol has")
            continue
        report.compare("protocol", f"{where}, document", version["hash"], identity(version["document"]))
        looks_back = [protocol.design.history, protocol.envelope.looks_back_days]
        stored = [version["history"], version["looks_back_days"]]
        report.compare("protocol", f"{where}, how far it looks back", stored, looks_back)
    if study.in_force() is None:
        report.diverge("protocol", "the version in force", study.facts["protocol_version"], "no such version")


def decisions(study: Study, report: Report) -> None:
    """Check that every decision has its protocol, its participant and its time, that no decision point occurs
    twice, and that a later point was drawn later."""
    for decision in study.checked:
        where, protocol = name(decision), study.protocol(decision)
        if protocol is None:
            report.diverge("protocol", where, decision["protocol_id"], "no such protocol")
            continue
        stored = [decision["protocol_hash"], decision["feature_version"]]
        report.compare("protocol", where, stored, [protocol.digest, protocol.design.feature_version])
        drawn_at, index = decision["act_gen_timestamp"], decision["decision_index"]
        was_in_force = study.effective[decision["protocol_id"]] <= drawn_at + CLOCKS
        report.compare("protocol", f"{where}: its protocol was in force", was_in_force, True)
        report.compare("time", f"{where}: drawn before the export", drawn_at <= study.as_of + CLOCKS, True)
        person = study.participants.get(decision["participant_id"])
        # a participant's index counts the points that are over; only the next point may have its decision
        points_over = 0 if person is None else person["decision_index"]
        in_study = 1 <= index <= protocol.schedule.study_length
        holds = [person is not None, in_study, index <= points_over + 1]
        report.compare(KIND, f"{where}: participant, index in the study, index reached", holds, [True] * 3)
    report.compare(KIND, "decision points", len(study.tables["decisions"]), len(study.points))
    report.compare(KIND, "decisions", len(study.tables["decisions"]), len(study.decisions))
    last_of = dict[int, Row]()
    for participant_id, index in sorted(study.points):
        decision = study.points[participant_id, index]
        before = last_of.get(participant_id)
        if before is not None:
            later = decision["act_gen_timestamp"] >= before["act_gen_timestamp"]
            report.compare("time", f"{name(decision)}: drawn after the point before", later, True)
        last_of[participant_id] = decision


def policies(study: Study, report: Report) -> None:
    """Check that every policy has its protocol, and learning rows that exist."""
    for policy in study.tables["policies"]:
        where, protocol = f"policy {policy['policy_id']}", study.protocol(policy)
        if protocol is None:
            report.diverge("protocol", where, policy["protocol_id"], "no such protocol")
            continue
        stored = [policy[column] for column in ("protocol_hash", "feature_version", "algorithm")]
        expected = [protocol.digest, protocol.design.feature_version, protocol.algorithm]
        report.compare("protocol", where, stored, expected)
        before = study.policies.get(policy["policy_id"] - 1)
        not_below = before is None or before["row_seq"] <= policy["row_seq"]
        holds = [not_below, policy["row_seq"] <= study.facts["row_seq"]]
        report.compare(KIND, f"{where}, row_seq: not below the policy before, exists", holds, [True] * 2)


def learning_rows(study: Study, report: Report) -> None:
    """Check that the numbers of learning rows rise."""
    last_row_seq = 0
    for row in study.tables["learning_rows"]:
        rises = row["row_seq"] > last_row_seq
        report.compare(KIND, f"row_seq {row['row_seq']} is above the one before", rises, True)
        last_row_seq = row["row_seq"]


def whole(study: Study, report: Report) -> None:
    """Check what only holds of all participants together: numbers have no gap, the audit has every act."""
    numbers = sorted(row["policy_id"] for row in study.tables["policies"])
    report.compare(KIND, "numbers of policies", numbers, list(range(len(numbers))))
    report.compare(KIND, "the policy that serves", study.facts["policy_id"] in study.policies, True)
    versions = [row["version"] for row in sorted(study.tables["protocols"], key=lambda row: int(row["id"]))]
    report.compare("protocol", "numbers of versions", versions, list(range(1, len(versions) + 1)))
    acts = study.tables["audit"]
    # rebuilds of the statistics took numbers among those of the learning rows
    rebuilds = [(act["after"] or {}).get("row_seq") for act in acts if act["act"] == "rebuild_statistics"]
    rebuild_numbers = [number for number in rebuilds if isinstance(number, int)]
    rows = [row["row_seq"] for row in study.tables["learning_rows"]]
    sequence = sorted([*rows, *study.removed.values(), *rebuild_numbers])
    where = "row_seq of learning rows, removals and rebuilds of the statistics"
    report.compare(KIND, where, sequence, list(range(1, study.facts["row_seq"] + 1)))
    removals = {
        act["participant_id"]: (act["after"] or {}).get("removed_row_seq")
        for act in acts
        if act["act"] == "remove_from_learning"
    }
    report.compare(KIND, "removals from learning, by the audit", study.removed, removals)
    # other answers of the app for a point that had its decision are in the audit too
    corrections = [act["after"] or {} for act in acts if act["act"] == "correct"]
    audited = [correction.get("rid") for correction in corrections if correction.get("source") == "actions"]
    stored = [row["decision_id"] for row in study.tables["answers"] if row["source"] == "actions"]
    report.compare("answers", "later bodies, by the audit", sorted(stored), sorted(audited))
