"""The data doctor: says what is in a folder, what is odd about it and what is wrong, before anything is trained."""

from skipway.doctor.examination import check
from skipway.doctor.findings import Findings

__all__ = ["Findings", "check"]
