"""Drawing on the axes of matplotlib: what `plot` methods of results and the figures share.

==========================================  ===========
The style of all figures, and saving        `style`
Eigenvalues: in order, counted, at an end   `spectra`
Smoothed densities between their bounds     `densities`
A few numbers with their intervals          `estimates`
Lines, planes and barriers of the loss      `landscape`
Extreme eigenvalues through training        `training`
The axes that a plot is drawn on            `axes`
The method `plot` of results                `plotted`
==========================================  ===========

The functions take plain arrays, so that a result can be drawn wherever it comes from.
"""
