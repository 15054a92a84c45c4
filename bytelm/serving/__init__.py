"""An OpenAI-compatible HTTP server over a running batch; the HTTP part needs the extra ``serve``."""

from bytelm.serving.engine import Engine as Engine
from bytelm.serving.engine import Ticket as Ticket
from bytelm.serving.errors import RequestError as RequestError
from bytelm.serving.limits import Limits as Limits
from bytelm.serving.requests import CompletionRequest as CompletionRequest
from bytelm.serving.requests import parse_completion as parse_completion
