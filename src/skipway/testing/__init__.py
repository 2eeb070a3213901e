"""Data sets with one fault each, made by code, to prove that a check sees what it claims to see.

>>> len(badset()) > 100
True
"""

from skipway.testing import channels, damage, folders, geometry, masks, sizes, splits, values
from skipway.testing.cases import Case, digest

ELSEWHERE = {
    "A27": "cost of many files: benchmarks/check.py",
    "B14": "more than 2^31 pixels: tests of the TIFF reader",
    "B26": "arrays that are read-only or strided: tests of `Predictor.predict`",
    "C25": "brightness: tests of the normalisation",
    "D06": "colour order: tests of the readers",
    "E32": "nothing is ever scaled down, so no object can vanish",
    "E33": "nothing is ever resized",
    "E34": "border weights of one object: tests of the weight maps",
    "E35": "border weights of many objects: tests of the weight maps",
    "F16": "archives are not unpacked",
    "F18": "a disk that fails cannot be made by a file",
    "F20": "mutants: tests of the readers",
    "G10": "sides and flips: tests of the augmentation",
    "G12": "DICOM's own turns of values: tests of the reader",
    "L06": "statistics of the training part: tests of the fingerprint",
    "L07": "no augmentation in validation: tests of the training",
    "L09": "folds: tests of the splits",
}
"""Rows of the catalogue that no folder of data can show, or that other tests prove."""


def badset(seed: int = 0) -> tuple[Case, ...]:
    """Every case; `case.make(folder, seed)` writes the data with the fault, `case.twin` those without.

    Args:
        seed: Of everything drawn; the same seed gives the same bytes.
    """
    rooms = (folders, sizes, values, channels, masks, damage, geometry, splits)
    return tuple(case.seeded(seed) for room in rooms for case in room.CASES)


__all__ = ["ELSEWHERE", "Case", "badset", "digest"]
