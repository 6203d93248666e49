"""The folders that the rules read, and the files that they make exceptions for."""

LAYERS = ("api", "workers", "services", "models", "algorithm")
# from the ground up: an area imports itself and those before it
AREAS = (
    *("core", "trial", "experiments", "devices", "surveys"),
    *("intake", "research", "oversight", "console"),
)
TOOLS = ("replay", "analysis", "rehearsal", "local")
PROGRAMS = (*LAYERS, *TOOLS)
READ = (*PROGRAMS, "migrations", "tests")

# each puts a program together from all areas, and no area imports it
ENTRY_POINTS = ("api/app.py", "api/server.py", "workers/app.py", "workers/beat.py", "models/__init__.py")
# these stems may stand in several areas of one layer
FIXED_STEMS = {"commands", "tasks", "faults", "acts", "examples", "aliases", "__init__"}

CLICK_FILES = ("api/core/cli.py", "api/core/keys.py", "api/core/backup.py", "api/core/pg_programs.py")
CELERY_FILES = ("api/core/broker.py", "celeryconfig.py")
COMMIT_FILES = ("models/core/session.py", "migrations/env.py")
SQL_FILES = ("api/core/health.py", "api/core/commands.py", "api/core/backup.py")
NAMED_FILES = (*ENTRY_POINTS, *CLICK_FILES, *CELERY_FILES, *COMMIT_FILES, *SQL_FILES)
