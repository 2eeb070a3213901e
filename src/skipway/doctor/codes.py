"""What each code means and what to do about it: the table of `docs/reference/codes.md`."""

from collections.abc import Mapping

CODES: Mapping[str, tuple[str, str]] = {
    "A01": ("no image in the folder", "name the folder that holds the images"),
    "A02": ("no mask in the folder", "name the folder that holds the masks"),
    "A03": ("names without partner", "add the missing files, or move the others out"),
    "A05": ("no name has a partner", "name two folders whose names agree"),
    "A08": ("two files of one name", "remove or rename one"),
    "A09": ("marks or folders that could mean two things", "name the masks, or their mark with `--suffix`"),
    "A10": ("names that differ only in case", "rename one"),
    "A13": ("files left aside, and other notes of the pairing", "nothing, if they are no images"),
    "A15": ("content of another kind: a web page, an archive, an unknown format", "export it as PNG or TIFF"),
    "A16": ("a name that says another format than the content", "rename it"),
    "A24": ("a pipe or device in place of a file", "remove it"),
    "A25": ("the same picture twice; refused where one trains and one validates", "remove one of the two"),
    "A29": ("one pair only, which trains and validates", "annotate more"),
    "A31": ("masks that are the images", "name the masks as second path"),
    "A34": ("names that are one on other systems", "rename one"),
    "A35": ("images and masks in the wrong order", "exchange the two folders in the command"),
    "B00": ("other things the reading policy did", "read the line"),
    "B02": ("a mask with rows and columns exchanged", "transpose it"),
    "B03": ("masks that fit their images better when turned or moved", "look at them; turn or move them"),
    "B04": ("a mask of another size", "resize it with nearest neighbour, or find the right one"),
    "B15": ("page counts that differ", "save stacks of equal length"),
    "B16": ("planes that could be channels or slices", "save the file with named axes"),
    "B17": ("axes that could mean several things", "save the file with named axes"),
    "B18": ("more axes than one image has", "save one file for each time or channel"),
    "B22": ("turned as its orientation tag says", "nothing, if image and mask are turned alike"),
    "C06": ("complex numbers", "save their absolute value"),
    "C07": ("bit depths or ranges that differ from file to file", "export all images alike"),
    "C09": ("NaN or infinite pixels", "replace them, or leave the image out"),
    "C11": ("an image or channel of one value", "leave it out, if it should show something"),
    "C13": ("single values far beyond all others", "look for hot pixels or marks of missing data"),
    "C22": ("an animation", "save its frames as files"),
    "C24": ("floats of at most 256 different values", "export again from the original"),
    "D01": (
        "grey and colour mixed, or channels that differ",
        "`--colour grey` or `--colour rgb`, or convert all to one kind",
    ),
    "D03": ("alpha that varies", "flatten the picture and save it without alpha"),
    "D07": ("CMYK, Lab or other colours", "convert to RGB"),
    "E01": ("two codings of masks, or values the training masks did not have", "use one coding"),
    "E03": ("foreground and background look exchanged", "invert those masks"),
    "E05": ("palettes that differ", "export all masks with one class list"),
    "E07": ("a mask in colours; with R = G = B a warning", "save one number a pixel"),
    "E09": ("a mask in a format that changes values", "export it as PNG"),
    "E11": ("values smeared by JPEG or smooth resizing", "export the mask again, or threshold it"),
    "E13": ("a class that is only a seam between two others", "resize masks with nearest neighbour"),
    "E16": ("negative values", "`--ignore` if they mean not annotated"),
    "E18": ("255 beside small class values", "`--ignore 255` if it means not annotated"),
    "E19": ("masks without any annotation", "leave them out"),
    "E20": ("masks of background only; refused where all are", "nothing, if there is nothing to see"),
    "E22": ("a class on one side of the split only", "another `--val`, or more masks with it"),
    "E25": ("fractions in a mask", "threshold probabilities first"),
    "E26": ("NaN in a mask", "export it as integers"),
    "E27": ("more values than classes can be", "`--task objects`, or exchange the two folders"),
    "E37": ("one mask for several images", "find out whose it is"),
    "E38": ("masks that fit another image, or none", "check the order in which they were exported"),
    "F01": ("a damaged, cut or empty file", "copy or export it again"),
    "F07": ("more channels than there can be", "export the channels you need"),
    "F08": ("more pixels than are decoded at once", "save it as a tiled TIFF"),
    "F17": ("a file that cannot be opened", "check path and permissions"),
    "F20": ("a file on which the decoder died or hung", "export it again, or leave it out"),
    "L00": ("other remarks about the split", "read the line"),
    "L03": (
        "nearly the same picture, within the data or across the split",
        "keep neighbours together with `--val`",
    ),
    "L04": ("groups that differ only in case or spaces", "spell them alike"),
    "L05": ("names of a list that do not exist", "correct the list"),
}
"""Code -> (meaning, remedy)."""


def page() -> str:
    """The table as Markdown."""
    head = "# Codes of refusals and warnings\n\nWritten from the code by `docs/make.py`.\n\n"
    rows = (f"| {code} | {meaning} | {remedy} |" for code, (meaning, remedy) in sorted(CODES.items()))
    return head + "\n".join(("| code | what was found | what to do |", "|---|---|---|", *rows)) + "\n"
