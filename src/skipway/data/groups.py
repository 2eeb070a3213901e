"""Images that come from one patient, slide or movie: they are alike, so one side of a split has them all.

Groups are stated (by a table that is named or lies with the data, or by the layout), or guessed from folders and
names. A guess needs every name to follow one pattern that leaves at least two groups, one of them with several images;
names that are only numbers are no groups. The pages of a stack are always one group.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from skipway.data.layouts import Pair, Pairs, natural
from skipway.data.layouts.pairs import GROUPINGS, SIDES
from skipway.data.lists import by_pair, is_table, read_table, some, stem_of_pair
from skipway.errors import DataError, Problem, SkipwayError
from skipway.images import shown

NONE = "none"
"""What `--groups` takes to switch the guess off."""

_PEOPLE = (
    "patient|subject|subj|sub|pat|donor|person|case|volunteer|animal|mouse|rat|fish|embryo|specimen|sample"
)
_SLIDES = "slide|wsi|biopsy|core"
_MOVIES = "volume|vol|stack|scan|movie|video|clip|sequence|seq"
_TILES = "tile|patch|crop|roi|row|col|x|y|r|c"
_FRAMES = "frame|slice|time|plane|page|layer|section|t|f|z"
_FIELDS = "field|fov|view|site|image|img|s"
_NO_CASES = re.compile(
    r"(site|cent(er|re)|batch|fold|train\w*|val\w*|test\w*|class|label|plate|day|set|part)", re.I
)


@dataclass(frozen=True)
class Groups:
    """Which images must not be parted.

    Attributes:
        of: Group by name of a pair; every pair has one.
        rule: How they were found, for people: "sequence before _t".
        certain: Whether a list that parts a group is refused; where it is only frames or a guess, it is warned of.
        warnings: Lines for people.
    """

    of: Mapping[str, str]
    rule: str
    certain: bool = True
    warnings: tuple[str, ...] = ()

    @property
    def members(self) -> dict[str, list[str]]:
        """Names by group, both in natural order."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for name in sorted(self.of, key=natural):
            found[self.of[name]].append(name)
        return {group: found[group] for group in sorted(found, key=natural)}

    def __str__(self) -> str:
        """`3 groups, sequence before _t: 01, 02, 03`."""
        groups = list(self.members)
        return f"{len(groups)} group{'s' if len(groups) != 1 else ''}, {self.rule}: {some(groups, 4)}"


@dataclass(frozen=True)
class _Guess:
    """One way to read groups from names."""

    what: str
    group: Callable[[str], tuple[str, str] | None]
    certain: bool = False
    least: float = 1.0


def find_groups(pairs: Pairs, asked: str | Path | None = None) -> Groups | None:
    """The groups of a data set, None where every image stands alone.

    Args:
        pairs: From `find_pairs`.
        asked: A table with a column `name` and a column `group`, or "none" for no groups besides stacks. Left
            out: what the data set states, else a table that lies with the data, else what its names say.

    Raises:
        DataError: a table that leaves images out, or says two things of one.
        UsageError: no such table.
    """
    if asked is not None and str(asked) != NONE:
        return from_table(pairs.pairs, Path(asked))
    if asked is None and pairs.stated.groups:
        return _complete(pairs.pairs, pairs.stated.groups, "as the data set states", shown(pairs.images_root))
    if asked is None and (told := beside(pairs)) is not None:
        return told
    stems = {pair.name: stem_of_pair(pair) for pair in pairs.pairs}
    bare = {stem: _without_side(stem) for stem in stems.values()}
    found = None if asked else guessed(sorted(set(bare.values()), key=natural))
    if found is None:
        several = len(set(stems.values())) > 1 and len(stems) > len(set(stems.values()))
        return Groups(stems, "pages of one stack", certain=False) if several else None
    of = {name: found.of[bare[stem]] for name, stem in stems.items()}
    return Groups(of, found.rule, found.certain, found.warnings)


def _without_side(stem: str) -> str:
    """`train/a_01` as `a_01`: a movie that is cut over folders of sides is still one."""
    folder, _, rest = stem.partition("/")
    return rest if rest and folder.casefold() in SIDES else stem


def from_table(pairs: Sequence[Pair], path: Path) -> Groups:
    """Groups that a table states, one row an image; rows of other images are passed over.

    Raises:
        DataError: it leaves images out, or says two things of one.
        UsageError: no such table.
    """
    head, rows = read_table(path, "--groups").by_name(GROUPINGS, "--groups")
    return _complete(pairs, by_pair(pairs, rows, path, head), f"{head} in {path.name}", shown(path))


def beside(pairs: Pairs) -> Groups | None:
    """Groups of a table that lies with the images or beside their folder, such as `index.csv`.

    It counts only where it has a row for every image and leaves at least two groups, one of several images; any
    other table is about something else.
    """
    roots = [root if root.is_dir() else root.parent for root in (pairs.images_root, pairs.masks_root)]
    folders = dict.fromkeys((roots[0], roots[0].parent) if roots[0].parent == roots[1].parent else roots[:1])
    for path in sorted(file for folder in folders for file in folder.iterdir() if is_table(file)):
        with suppress(SkipwayError):
            if read_table(path, "").head(GROUPINGS) is not None:
                found = from_table(pairs.pairs, path)
                if 2 <= len(found.members) < len(found.of):
                    return found
    return None


def _complete(pairs: Sequence[Pair], of: Mapping[str, str], rule: str, where: str) -> Groups:
    missing = [pair.name for pair in pairs if not of.get(pair.name, "").strip()]
    if missing:
        raise DataError(
            Problem(
                f"no group for {len(missing)} of {len(pairs)} images: {some(missing)}",
                where,
                "a group for every image",
                "add the rows; an image that stands alone is a group of its own",
                "L05",
            )
        )
    return _merged({pair.name: of[pair.name] for pair in pairs}, rule, True)


def guessed(names: Sequence[str]) -> Groups | None:
    """Groups by the first pattern that all names follow.

    >>> str(guessed(["01_t000", "01_t001", "02_t000", "02_t001"]))
    '2 groups, sequence before _t: 01, 02'
    >>> guessed(["000", "001", "002"]) is None
    True
    """
    for guess in _GUESSES:
        found = [guess.group(name) for name in names]
        parts = {part for part in found if part is not None}
        if None in found or not parts:
            continue
        of = {name: part[0] for name, part in zip(names, found, strict=True) if part}
        groups = _merged(of, f"{guess.what}{_mark({mark for _, mark in parts})}", guess.certain)
        count = len(groups.members)
        if 2 <= count < len(names) and len(names) >= guess.least * count:
            return groups
    return None


def _mark(marks: Iterable[str]) -> str:
    found = sorted(set(marks) - {""})
    return f" before {found[0]}" if len(found) == 1 else ""


def _merged(of: Mapping[str, str], rule: str, certain: bool) -> Groups:
    """Ids that differ only in case or spaces are taken for one: to part what belongs together is the worse mistake."""
    spellings: defaultdict[str, set[str]] = defaultdict(set)
    for group in of.values():
        spellings["".join(group.split()).casefold()].add(group)
    chosen = {key: min(same, key=lambda g: (g != g.strip(), natural(g))) for key, same in spellings.items()}
    warnings = tuple(
        f"groups {' and '.join(repr(group) for group in sorted(same))} differ only in case or spaces and are taken "
        "for one [L04]; if they are not, give them different names in a table: --groups FILE"
        for same in spellings.values()
        if len(same) > 1
    )
    named = {name: chosen["".join(group.split()).casefold()].strip() for name, group in of.items()}
    return Groups(named, rule, certain, warnings)


def _word(words: str) -> Callable[[str], tuple[str, str] | None]:
    """A word with an id anywhere in the name: `x_patient12_slice03` is of `patient12`, in whatever folder."""
    pattern = re.compile(
        rf"(?:^|[_\-. /])(?P<id>(?:{words})(?:[_\- ]?[a-z]?\d+[a-z]?|[_\- ][a-z0-9]+|[a-z]))(?=$|[_\-. /])",
        re.I,
    )

    def group(name: str) -> tuple[str, str] | None:
        found = pattern.search(name)
        return (found["id"], "") if found else None

    return group


def _tail(words: str, before: str = "") -> Callable[[str], tuple[str, str] | None]:
    """A word with numbers at the end: `01_t003` is of `01`, `slideA_tile_0_512` of `slideA`."""
    pattern = re.compile(  # the shortest id that fits: `a_x0_y512` is of `a`
        rf"(?P<id>{before}.*?[^/_\-. ])(?P<mark>[_\-. ]+(?:{words}))[_\-]?\d+(?:[_\-. ]?[a-z]{{0,5}}[_\-]?\d+)*",
        re.I,
    )

    def group(name: str) -> tuple[str, str] | None:
        found = pattern.fullmatch(name)
        return (found["id"], found["mark"].lower()) if found else None

    return group


def _numbered(first: str, last: str) -> Callable[[str], tuple[str, str] | None]:
    """A name that itself holds a number, then another number: `P01_2`, `0016E5_05940`."""
    compiled = re.compile(rf"(?P<id>(?:.*/)?{first})[_\-]{last}")

    def group(name: str) -> tuple[str, str] | None:
        found = compiled.fullmatch(name)
        return (found["id"], "") if found else None

    return group


def _case_folder(name: str) -> tuple[str, str] | None:
    """The folder of an image, where it is called like one case: `case3/`, `P01/`, `02/`, not `site1/` or `train/`."""
    folder, _, _ = name.rpartition("/")
    last = folder.rpartition("/")[2]
    return (folder, "") if re.search(r"\d", last) and not _NO_CASES.match(last) else None


_GUESSES = (
    _Guess("patient or case in the name", _word(_PEOPLE), certain=True),
    _Guess("slide in the name", _word(_SLIDES), certain=True),
    _Guess("folder of each case", _case_folder),
    _Guess("image", _tail(_TILES), certain=True),
    _Guess("volume or movie in the name", _word(_MOVIES)),
    _Guess("sequence", _tail(_FRAMES)),
    _Guess("name", _tail(_FIELDS, before=r"(?=[^/]*\d[^/]*[_\-. ])")),
    _Guess("patient before the last number", _numbered(r"(?:[Pp]|[Pp]t|ID)\d+ *", r"\d+"), certain=True),
    _Guess("name before the last number", _numbered(r"[A-Za-z]{1,4}\d+ *", r"\d+")),
    _Guess("name before the last number", _numbered(r"[^/]*\d[^/]*", r"[A-Za-z]{0,2}\d+"), least=3.0),
)
