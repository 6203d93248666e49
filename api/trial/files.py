"""Protocols in files, read for the command line."""

import json
from pathlib import Path

import click

from algorithm.trial import protocol
from algorithm.trial.protocol import Protocol, ProtocolError
from api.core.endpoint import unique

LARGEST_FILE = 2**20


def from_file(path: Path) -> Protocol:
    """The protocol in a file. Raises ClickException."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise click.ClickException(f"{path} is too large for a protocol")
        return protocol.load(json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique))
    except ProtocolError as error:
        raise click.ClickException(f"{path}: {error}") from None
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise click.ClickException(f"{path} is no JSON document: {error}") from None
