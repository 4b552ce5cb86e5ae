"""Start of the command: `python ARTEFACT/runtime`, or `python -m runtime` with ARTEFACT on the path."""

import importlib
import os
import sys

package = __package__
if not package:  # Python was given the folder: import it as the package of its name
    folder = os.path.dirname(os.path.realpath(__file__))
    package = os.path.basename(folder)
    others = [path for path in sys.path if os.path.realpath(path) != folder]
    sys.path[:] = [os.path.dirname(folder), *others]

if __name__ == "__main__":
    command = importlib.import_module(f"{package}.command")
    try:
        sys.exit(command.main())
    except KeyboardInterrupt:
        command.say("interrupted")
        sys.exit(130)
