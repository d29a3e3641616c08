"""config.yaml as typed, checked settings.

- `hesspipe.config.loading`: read and check a configuration
- `hesspipe.config.expansion`: named parts, groups, grids and included files
- `hesspipe.config.schema`: experiments, datasets, models, trainings
- `hesspipe.config.figures`, `tables`, `claims`: the entries that read results
- `hesspipe.config.results`: `ResultKey`, the name and path of each result
- `hesspipe.config.producers`: the results that the job of each result reads
- `hesspipe.config.checks`, `messages`: configuration errors, reported before any job starts
- `hesspipe.config.json_schema`: config.schema.json, for editors
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
