"""The base class of all tables, with one naming convention, and column types that several tables have."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from sqlalchemy import BigInteger, DateTime, ForeignKey, Identity, MetaData, Text, func
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from models.core.declarations import Export

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

Id = Annotated[int, mapped_column(BigInteger, Identity(always=True), primary_key=True)]
StudyId = Annotated[int, mapped_column(BigInteger, ForeignKey("studies.id"))]
ParticipantId = Annotated[int, mapped_column(BigInteger, ForeignKey("participants.id"))]
ProtocolId = Annotated[int, mapped_column(BigInteger, ForeignKey("protocols.id"))]
DecisionId = Annotated[int, mapped_column(BigInteger, ForeignKey("decisions.id"))]
Instant = Annotated[datetime, mapped_column(DateTime(timezone=True))]
CreatedAt = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.now())]
Document = Annotated[dict[str, Any], mapped_column(JSONB)]
Floats = Annotated[list[float], mapped_column(ARRAY(DOUBLE_PRECISION))]


class Base(DeclarativeBase):
    """The base class of all tables. Each declares what is declared here, and the meanings of its columns.

    __rights__: the rights of the service's role on the table beside SELECT, as in GRANT.
    """

    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map: ClassVar = {str: Text}
    __rights__: ClassVar[str]
    __export__: ClassVar[Export]


def classes() -> dict[str, type[Base]]:
    """Return the class of each table by the table's name."""
    return {mapper.class_.__tablename__: mapper.class_ for mapper in Base.registry.mappers}
