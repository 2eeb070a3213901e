"""Names on one side, names on the other: which belong together, and an error that lists all that do not."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from skipway.data.folders import some
from skipway.data.layouts.pairs import natural
from skipway.data.names import best_rule, key_of
from skipway.errors import DataError, Problem
from skipway.images import shown


def matched(
    images: Sequence[Path], masks: Sequence[Path], image_root: Path, mask_root: Path, *, partly: bool = False
) -> tuple[dict[str, tuple[Path, Path]], str, dict[str, Path]]:
    """Pairs by exact stem; where no stem matches at all, by a constant affix.

    Args:
        images: Files below `image_root`.
        masks: Files below `mask_root`.
        image_root: Where names of images begin.
        mask_root: Where names of masks begin.
        partly: Whether images without mask are left aside.

    Returns:
        Pairs by name, the rule for people, and the images left aside.

    Raises:
        DataError: two files of one name, or names without partner, all of them listed.
    """
    by_image, by_mask = keyed(images, image_root), keyed(masks, mask_root)
    rule = "same name in both folders"
    core_of = {key: key for key in by_image}
    if not by_image.keys() & by_mask.keys():
        affix = best_rule(tuple(by_image), tuple(by_mask))
        if affix is not None:
            core_of = {key: affix.image_core(key) for key in by_image}
            by_mask = {affix.mask_core(key): file for key, file in by_mask.items()}
            rule = f"by name, {affix}"
    aside = {key: file for key, file in by_image.items() if partly and core_of[key] not in by_mask}
    kept = {key: file for key, file in by_image.items() if key not in aside}
    cores = {core_of[key]: kept[key] for key in kept}
    refuse_unmatched(
        cores, by_mask, image_root, mask_root, rule, also=", or leave them aside: --layout partly"
    )
    return {key: (kept[key], by_mask[core_of[key]]) for key in kept}, rule, aside


def keyed(files: Sequence[Path], root: Path) -> dict[str, Path]:
    """Files by their path from the root without suffix, refused where two share one."""
    groups: defaultdict[str, list[Path]] = defaultdict(list)
    for file in files:
        groups[key_of(file, root)].append(file)
    clashes = [group for group in groups.values() if len(group) > 1]
    if clashes:
        raise DataError(
            *(
                Problem(
                    f"two files of one name: {some(group)}",
                    shown(root),
                    "one file a name",
                    "remove or rename one of them",
                    "A08",
                )
                for group in clashes
            )
        )
    return {key: group[0] for key, group in groups.items()}


def refuse_unmatched(
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    image_root: Path,
    mask_root: Path,
    rule: str,
    *,
    also: str = "",
) -> None:
    """Lists every name without partner, both ways, in one error.

    Args:
        images: Files by what pairs them.
        masks: Likewise.
        image_root: For the message.
        mask_root: For the message.
        rule: For the message.
        also: Another remedy for some images without mask.
    """
    lonely_images = sorted(images.keys() - masks.keys(), key=natural)
    lonely_masks = sorted(masks.keys() - images.keys(), key=natural)
    folded = {key.casefold(): key for key in lonely_masks}
    cases = [key for key in lonely_images if key.casefold() in folded]
    problems = [
        Problem(
            f"{shown(masks[folded[key.casefold()]])} differs only in case",
            shown(images[key]),
            "the same upper and lower case",
            "rename one of the two",
            "A10",
        )
        for key in cases
    ]
    lonely_images = [key for key in lonely_images if key not in cases]
    lonely_masks = [key for key in lonely_masks if key.casefold() not in {c.casefold() for c in cases}]
    sides = (
        (lonely_images, images, image_root, "image", "mask", also),
        (lonely_masks, masks, mask_root, "mask", "image", ""),
    )
    for lonely, files, root, what, other, remedy in sides:
        if lonely:
            names, all_of_them = some(files[key] for key in lonely), len(lonely) == len(files)
            problems.append(
                Problem(
                    f"{len(lonely)} of {len(files)} {what}s without {other}: {names}",
                    shown(root),
                    f"{'an image' if other == 'image' else 'a mask'} for every {what} ({rule})",
                    f"add the {other}s, or move these {what}s out of the folder{'' if all_of_them else remedy}",
                    "A05" if all_of_them else "A03",
                )
            )
    if problems:
        raise DataError(*problems)


def left_aside(root: Path, others: Sequence[Path]) -> tuple[str, ...]:
    """A note on pictures of formats that are not read."""
    if not others:
        return ()
    return (f"{shown(root)}: {len(others)} files of formats not read here are left aside: {some(others)}",)


def collisions(keyed: Mapping[str, Path]) -> tuple[str, ...]:
    """A note on names that some systems take for one."""
    counts = Counter(key.casefold() for key in keyed)
    same = [keyed[key] for key in keyed if counts[key.casefold()] > 1]
    return (f"names that differ only in case are one file on other systems: {some(same)}",) if same else ()
