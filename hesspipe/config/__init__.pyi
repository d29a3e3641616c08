from .loading import ConfigError as ConfigError
from .loading import load_config as load_config
from .loading import validate_config as validate_config
from .results import ResultKey as ResultKey
from .results import ResultKind as ResultKind
from .schema import Config as Config
