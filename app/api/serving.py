"""`python -m app.api.serving ARGUMENTS`: uvicorn, which ends with this program's exit codes.

uvicorn ends with 3 when the application cannot start. For `registrar` that means that consent is missing.
"""

import sys
from typing import NoReturn

from uvicorn.config import STARTUP_FAILURE
from uvicorn.main import main

FAILED = 1


def serve() -> NoReturn:
    try:
        main()
    except SystemExit as ended:
        sys.exit(FAILED if ended.code == STARTUP_FAILURE else ended.code)
    sys.exit(0)


if __name__ == "__main__":
    serve()
