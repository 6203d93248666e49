"""A database that only reads, as a standby does before it takes over."""

import psycopg2
import pytest

from models.core import connections
from tests.support.study import Study


def test_a_database_that_only_reads_is_away_for_calls_that_write(study: Study) -> None:
    study.enrol("ann")
    first = study.decide("ann")
    name = study.rows("SELECT current_database() AS name")[0]["name"]
    study.tamper(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    connections.forget()
    try:
        assert study.decide("ann") == first
        ended = study.post_end("ann")
        assert (ended.status_code, ended.get_json()["error_code"]) == (503, 907)
        assert "Retry-After" in ended.headers
        assert study.call("GET", "/study").status_code == 200
    finally:
        with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
            study.tamper("DELETE FROM discrepancies")  # it really only read
        reset = f"ALTER DATABASE {name} RESET default_transaction_read_only"
        study.tamper(f"BEGIN READ WRITE; {reset}; COMMIT")
        connections.forget()
    assert study.post_end("ann").status_code == 202
