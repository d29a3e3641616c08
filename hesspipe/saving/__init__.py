"""Results of the library as tables of the pipeline: `hesspipe.save` and `hesspipe.load`.

`files` writes and reads them. `forms` converts results to tables and back, `layer_forms` those of
layers, `interval_forms` curves and numbers with intervals, `landscape_forms` losses on lines and
planes; `records` draws the table of a monitor. The package is above `hesspipe.tables`, whose
readers need no torch.
"""
