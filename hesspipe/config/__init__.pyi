from .results import ResultKey as ResultKey
from .results import ResultKind as ResultKind
from .schema import Config as Config
from .schema import ConfigError as ConfigError
from .schema import load_config as load_config
from .schema import validate_config as validate_config
