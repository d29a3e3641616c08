"""Results of the library as tables of the pipeline: `hesspipe.save` and `hesspipe.load`.

`files` writes and reads them, `forms` converts results to tables and back, `layer_forms` those of
layers. The package is above `hesspipe.tables`, whose readers need no torch.
"""
