"""The paper's statements as checks on results, with verdicts.

==============================================  ============
Check every claim of config.yaml                `check`
Statements about spectra of trained networks    `spectrum`
Statements about H = G + R, outlier directions  `landscape`
and lines between solutions
Statements from random matrix theory            `theory`
Spectrum and outlier counts of one run          `runs`
==============================================  ============
"""
