"""What must hold between rows: protocols have their hashes, numbers no gap, everything has its decision."""

from collections.abc import Iterator

from algorithm.trial.protocol import identity
from replay.decisions import name
from replay.findings import Report
from replay.format.long_table import Row
from replay.known_when import CLOCKS
from replay.tables import Study

KIND = "reference"


def check(study: Study, report: Report) -> None:
    """Every protocol, decision, policy, learning row and participant is where the others say it is."""
    for version in study.tables["protocols"]:
        _protocol(study, version, report)
    for decision in study.checked:
        _decision(study, decision, report)
    _order(study, report)
    for policy in study.tables["policies"]:
        _policy(study, policy, report)
    _learning_rows(study, report)
    if study.in_force() is None:
        report.diverge("protocol", "the version in force", study.facts["protocol_version"], "no such version")


def _protocol(study: Study, version: Row, report: Report) -> None:
    where = f"protocol {version['id']}"
    loaded = study.protocols[version["id"]]
    if loaded is None:
        report.diverge("protocol", where, "a protocol", "a document that no protocol has")
        return
    report.compare("protocol", f"{where}, document", version["hash"], identity(version["document"]))
    looks_back = [loaded.design.history, loaded.envelope.looks_back_days]
    told = [version["history"], version["looks_back_days"]]
    report.compare("protocol", f"{where}, how far it looks back", told, looks_back)


def _decision(study: Study, decision: Row, report: Report) -> None:
    protocol = study.protocol(decision)
    if protocol is None:
        report.diverge("protocol", name(decision), decision["protocol_id"], "no such protocol")
        return
    told = ("protocol_hash", "feature_version")
    report.compare(
        "protocol",
        name(decision),
        [decision[one] for one in told],
        [protocol.digest, protocol.design.feature_version],
    )
    begun = study.effective[decision["protocol_id"]] <= decision["act_gen_timestamp"] + CLOCKS
    report.compare("protocol", f"{name(decision)}: its protocol was in force", begun, True)
    drawn = decision["act_gen_timestamp"] <= study.as_of + CLOCKS
    report.compare("time", f"{name(decision)}: drawn before the export", drawn, True)
    person = study.participants.get(decision["participant_id"])
    inside = 1 <= decision["decision_index"] <= protocol.schedule.study_length
    over = 0 if person is None else person["decision_index"]
    found = [person is not None, inside, decision["decision_index"] <= over + 1]
    report.compare(
        KIND, f"{name(decision)}: participant, index in the study, index reached", found, [True] * 3
    )


def _order(study: Study, report: Report) -> None:
    """No point twice; a later point was drawn later."""
    report.compare(KIND, "decision points", len(study.tables["decisions"]), len(study.points))
    report.compare(KIND, "decisions", len(study.tables["decisions"]), len(study.decisions))
    last: dict[int, Row] = {}
    for key in sorted(study.points):
        decision = study.points[key]
        before = last.get(key[0])
        if before is not None:
            later = decision["act_gen_timestamp"] >= before["act_gen_timestamp"]
            report.compare("time", f"{name(decision)}: drawn after the point before", later, True)
        last[key[0]] = decision


def _policy(study: Study, policy: Row, report: Report) -> None:
    where = f"policy {policy['policy_id']}"
    protocol = study.protocol(policy)
    if protocol is None:
        report.diverge("protocol", where, policy["protocol_id"], "no such protocol")
        return
    told = ("protocol_hash", "feature_version", "algorithm")
    expected = [protocol.digest, protocol.design.feature_version, protocol.algorithm]
    report.compare("protocol", where, [policy[one] for one in told], expected)
    before = study.policies.get(policy["policy_id"] - 1)
    contained = before is None or before["row_seq"] <= policy["row_seq"]
    reached = policy["row_seq"] <= study.facts["row_seq"]
    report.compare(
        KIND, f"{where}, row_seq: not below the policy before, exists", [contained, reached], [True] * 2
    )


def whole(study: Study, report: Report) -> None:
    """What holds of a whole study alone: numbers without a gap."""
    numbers = sorted(row["policy_id"] for row in study.tables["policies"])
    report.compare(KIND, "numbers of policies", numbers, list(range(len(numbers))))
    report.compare(KIND, "the policy that serves", study.facts["policy_id"] in study.policies, True)
    versions = [row["version"] for row in sorted(study.tables["protocols"], key=lambda row: int(row["id"]))]
    report.compare("protocol", "numbers of versions", versions, list(range(1, len(versions) + 1)))
    rows = [row["row_seq"] for row in study.tables["learning_rows"]]
    sequence = sorted([*rows, *study.removed.values(), *_rebuilds(study)])
    told = "row_seq of learning rows, removals and rebuilds of the statistics"
    report.compare(KIND, told, sequence, list(range(1, study.facts["row_seq"] + 1)))
    removals = {
        act["participant_id"]: (act["after"] or {}).get("removed_row_seq")
        for act in study.tables["audit"]
        if act["act"] == "remove_from_learning"
    }
    report.compare(KIND, "removals from learning, by the audit", study.removed, removals)
    _later_bodies(study, report)


def _rebuilds(study: Study) -> Iterator[int]:
    """The numbers that rebuilds of the statistics took among the learning rows, by the audit."""
    for act in study.tables["audit"]:
        taken = (act["after"] or {}).get("row_seq")
        if act["act"] == "rebuild_statistics" and isinstance(taken, int):
            yield taken


def _later_bodies(study: Study, report: Report) -> None:
    """Other answers for a point that had its decision are in the audit."""
    noted = [act["after"] or {} for act in study.tables["audit"] if act["act"] == "correct"]
    told = [one.get("rid") for one in noted if one.get("source") == "actions"]
    stored = [row["decision_id"] for row in study.tables["answers"] if row["source"] == "actions"]
    report.compare("answers", "later bodies, by the audit", sorted(stored), sorted(told))


def _learning_rows(study: Study, report: Report) -> None:
    before = 0
    for row in study.tables["learning_rows"]:
        report.compare(
            KIND, f"row_seq {row['row_seq']} is above the one before", row["row_seq"] > before, True
        )
        before = row["row_seq"]
