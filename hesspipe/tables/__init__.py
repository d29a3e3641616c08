"""Results on disk, and the tables of the paper.

========================================  ============================================
Store and read results                    `store`: `Result`, `read_result`, `write_result`
Columns, units and provenance of a kind   `schemas`, of `network_schemas` and
                                          `random_matrix_schemas`, made by `columns`
Select rows and join results              `queries`: outlier counts, extreme eigenvalues
Write a table as CSV, Markdown, LaTeX     `formats`, which also writes the report's pages
or a web page
========================================  ============================================

Each kind of table of config.yaml is the module of that name, with a function `make_table(results,
settings)`: the results in the order of the entry's `reads`, and the entry itself as a dictionary.
A module that formats its table in its own way also has `to_markdown` or `to_latex`.

==================  ==================================================================
`outlier_counts`    outlier counts and published ones: Table 1
`inertia`           signs of the eigenvalues: Figures 3 to 6
`sharpness`         largest eigenvalues and stability limits of trainings
`barriers`          loss barriers on lines between solutions: Figure 9
`decomposition`     H = G + R through training
`directions`        leading eigenvectors and class-mean gradients
`laws`              linear models and their limiting laws: Figure 10
`spikes`            the largest eigenvalue of a spiked model: Theorem 1
`spiked_spectra`    whole spectra of spiked models: Theorem 2
`claims`            verdicts on the paper's statements
==================  ==================================================================
"""
