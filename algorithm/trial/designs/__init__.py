"""The registry of trial designs: to add a trial, write one file beside this one and name it here."""

from algorithm.trial.designs.design import Design
from algorithm.trial.designs.miwaves import MIWAVES
from algorithm.trial.designs.oralytics import ORALYTICS

DESIGNS: dict[str, Design] = {design.name: design for design in (MIWAVES, ORALYTICS)}
