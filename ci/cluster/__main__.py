"""The local cluster's command line: see `python -m ci.cluster --help`."""

import sys

from ci.cluster.command_line import main

if __name__ == "__main__":
    sys.exit(main())
