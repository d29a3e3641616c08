"""The loss between solutions: lines, planes, alignment and barriers."""
