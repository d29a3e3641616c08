"""Figures: one module for each kind of figure of config.yaml.

A kind is added in three places: a model of its entry in `hesspipe.config`, with `reads` for the
results that it shows; a module here with the name of the kind; and a caption in report/figure.rst.

The module has a function `make_figure(results, settings)`, which gets the results in the order of
the entry's `reads`, and the entry itself as a dictionary, and returns a matplotlib Figure. It
selects, lays out and draws with functions `draw_<part>(axes, table)`; it reads no file and
computes nothing that a job before it could store. `hesspipe.plots` has what all figures share,
and `networks` the curves of several networks in one panel.

===================  ==============================================================
`endpoints`          all eigenvalues in order, at several steps: Figure 1
`gaps`               largest eigenvalues and the gap below the outliers: Figure 2
`right_edge`         largest eigenvalues of several networks: Figures 3 and 4
`negative_part`      negative eigenvalues of several networks: Figures 5 and 6
`training`           loss and accuracy through one training
`basins`             loss and accuracy, large batches and then small ones: Figure 8
`line`               loss and accuracy on the line between solutions: Figure 9
`bulks`              spectra of linear models and their limiting laws: Figure 10
`spikes`             the largest eigenvalue of a spiked model: Theorem 1
`spiked_spectra`     whole spectra of spiked models: Theorem 2
`decomposition`      H = G + R through training
`directions`         leading eigenvectors and class-mean gradients
`plane`              training loss on a plane through three solutions
`ordered`            magnitudes of all eigenvalues in order
`overlay`            both ends of the spectra of H, G and R
`over_training`      both ends of a spectrum through training
`outliers`           largest eigenvalues and the cutoff of each rule
`densities`          smoothed densities of several matrices
`layers`             smoothed densities of the parts of a network
===================  ==============================================================
"""
