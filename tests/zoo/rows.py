"""All rows of the zoo, by the section of the documentation they stand in."""

from zoo import formulas, further, kinds, language, meeting, plain, selections, vision

SECTIONS = {
    "torchvision and timm": vision.ROWS,
    "transformers and peft": language.ROWS,
    "torch and torch_geometric": plain.ROWS,
    "more kinds, with torch only": kinds.ROWS,
    "further models of these packages": further.ROWS,
    "formulas, with torch only": formulas.ROWS,
    "two features that meet": meeting.ROWS,
    "operations that select, look up or differentiate": selections.ROWS,
}
