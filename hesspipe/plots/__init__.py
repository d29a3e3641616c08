"""Drawing on the axes of matplotlib: what `plot` methods of results and the figures share.

==========================================  ===========
The style of all figures, and saving        `style`
Eigenvalues: in order, counted, at an end   `spectra`
Smoothed densities between their bounds     `densities`
The axes that a plot is drawn on            `axes`
==========================================  ===========

The functions take plain arrays, so that a result can be drawn wherever it comes from.
"""
