# One image for migrate, api, worker, beat and flower; docker-compose.yml gives each its command.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 OPENBLAS_NUM_THREADS=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

# /var/lib/kairos is where beat and Flower keep their small files, and objects there is the object store's folder:
# a volume made here belongs to this user.
RUN useradd --system --home-dir /srv/kairos --shell /usr/sbin/nologin kairos \
    && install --directory --owner kairos --mode 0700 /var/lib/kairos /var/lib/kairos/objects

WORKDIR /srv/kairos
COPY requirements.lock .
RUN pip install --only-binary :all: --require-hashes --requirement requirements.lock

COPY alembic.ini celeryconfig.py audit_chain.py gunicorn.conf.py logs.py version.py ./
COPY algorithm algorithm
COPY analysis analysis
COPY api api
COPY migrations migrations
COPY models models
COPY replay replay
COPY services services
COPY settings settings
COPY workers workers

USER kairos
