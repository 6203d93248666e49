"""The two applications that /actions is compared with: Flask doing nothing, and the least for a decision.

The floor reads one row by its key and commits one inserted row through the bare driver, on a connection that
each thread keeps: no checks, no accounts, no mathematics.
"""

import os
import threading

import psycopg2
from flask import Flask, Response, request

TABLES = """
CREATE TABLE IF NOT EXISTS floor_people (name text PRIMARY KEY, place int NOT NULL);
CREATE TABLE IF NOT EXISTS floor_decisions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL, place int NOT NULL, answers jsonb NOT NULL,
    probability float8 NOT NULL
);
"""
app = Flask(__name__)
thread = threading.local()


@app.post("/noop")
def noop() -> Response:
    """Read the body and answer."""
    request.get_data()
    return Response('{"status":"success"}', mimetype="application/json")


@app.post("/floor")
def floor() -> Response:
    """Read one row, insert one and commit."""
    if not hasattr(thread, "connection"):
        url = os.environ["DATABASE_URL"].replace("postgresql+psycopg2://", "postgresql://")
        thread.connection = psycopg2.connect(url)
    body = request.get_json()
    with thread.connection as connection, connection.cursor() as cursor:  # psycopg2's `with` commits
        cursor.execute("SELECT place FROM floor_people WHERE name = %s", (body["user_id"],))
        (place,) = cursor.fetchone() or (0,)
        cursor.execute(
            "INSERT INTO floor_decisions (name, place, answers, probability) "
            "VALUES (%s, %s, %s, %s) RETURNING id",
            (body["user_id"], place + 1, request.get_data(as_text=True), 0.5),
        )
        (rid,) = cursor.fetchone() or (0,)
    return Response(f'{{"status":"success","rid":{rid}}}', mimetype="application/json")
