"""The registry of trial designs: to add a trial, write one file beside this one and name it here."""

from algorithm.protocols.design import Design
from algorithm.protocols.miwaves import MIWAVES
from algorithm.protocols.oralytics import ORALYTICS

DESIGNS: dict[str, Design] = {design.name: design for design in (MIWAVES, ORALYTICS)}
